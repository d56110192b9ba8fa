from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from strandline_broker.server.config import BrokerConfig, ConfigError, load
from strandline_broker.server.config_keys import spec_of

NEEDED = ["broker_id=3", "data_dir=/data", "store=sqlite:/data/cluster.db"]


def load_with(*assignments: str, environment: dict[str, str] | None = None) -> BrokerConfig:
    return load(None, [*NEEDED, *assignments], environment or {})


def test_assignments_win_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "broker.yaml"
    file.write_text("num_partitions: 2\nfetch.max.bytes: 2048\nrack: a\nauto_create_topics_enable: false\n")
    environment = {"STRANDLINE_NUM_PARTITIONS": "3", "STRANDLINE_RACK": "b", "PATH": "/bin"}
    config = load(file, [*NEEDED, "num.partitions=4"], environment)
    assert (config.num_partitions, config.rack, config.fetch_max_bytes) == (4, "b", 2048)
    assert config.auto_create_topics_enable is False
    assert config.default_replication_factor == 1


def test_kafka_names_are_understood() -> None:
    config = load(None, ["node.id=7", "log.dirs=/d", "store=sqlite:/d/c", "broker.rack=r"], {})
    assert (config.broker_id, config.data_dir, config.rack) == (7, "/d", "r")


def test_an_empty_value_unsets_what_is_unset_by_default() -> None:
    assert load_with("rack=").rack is None


def test_replication_has_kafkas_names_and_defaults() -> None:
    shown = load_with().kafka_configs()
    defaults = {name: value for name, (value, *_) in shown.items() if name.startswith("replica.")}
    assert defaults == {
        "replica.fetch.backoff.ms": "1000",
        "replica.fetch.max.bytes": "1048576",
        "replica.fetch.min.bytes": "1",
        "replica.fetch.response.max.bytes": "10485760",
        "replica.fetch.wait.max.ms": "500",
        "replica.high.watermark.checkpoint.interval.ms": "5000",
        "replica.lag.time.max.ms": "30000",
        "replica.selector.class": None,
    }
    assert load_with("replica.selector.class=").replica_selector_class is None
    near = "org.apache.kafka.common.replica.RackAwareReplicaSelector"
    assert load_with(f"replica.selector.class={near}").replica_selector_class == near


def test_lists_in_yaml_become_comma_separated(tmp_path: Path) -> None:
    file = tmp_path / "broker.yaml"
    file.write_text("listeners: [PLAINTEXT://a:1, 'SSL://b:2']\nssl_certificate_file: c\nssl_key_file: k\n")
    config = load(file, NEEDED, {})
    assert [listener.name for listener in config.resolve_listeners()] == ["PLAINTEXT", "SSL"]


def test_kubernetes_service_variables_are_no_settings() -> None:
    environment = {
        "STRANDLINE_SERVICE_HOST": "10.0.0.1",
        "STRANDLINE_KAFKA_SERVICE_PORT_HTTP": "9092",
        "STRANDLINE_HTTP_PORT": "tcp://10.0.0.1:80",
        "STRANDLINE_PORT_9092_TCP_ADDR": "10.0.0.1",
    }
    assert load_with(environment=environment).http_port == -1


@pytest.mark.parametrize(
    ("assignment", "why"),
    [
        ("num_partitons=1", r"unknown key num_partitons \(did you mean num_partitions\?\)"),
        ("log.retention.hours=1", "set retention.ms in the Cluster's spec.config"),
        ("min.insync.replicas=2", "spec.config"),
        ("num_partitions=0", "0 is below 1"),
        ("num_partitions=1.5", "not a whole number"),
        ("fetch.max.bytes=9999999999", "above 2147483647"),
        ("auto_create_topics_enable=yes", "neither true nor false"),
        ("flush=fsync", "not one of Fsync, Replicated"),
        ("store=etcd:x", "neither sqlite:PATH nor kubernetes"),
        ("store=sqlite:", "needs a path"),
        ("lease_renew_ms=6000", "lease_duration_ms"),
        ("queued_max_request_bytes=2000000", "request_memory_bytes must be at least"),
        ("replica.fetch.wait.max.ms=30001", "leave the ISR while they wait"),
        ("replica.selector.class=a.B", "neither .*LeaderSelector nor .*RackAwareReplicaSelector"),
        ("replica.fetch.min.bytes=-1", "-1 is below 0"),
        ("nonsense", "not key=value"),
    ],
)
def test_bad_settings_are_refused_with_the_reason(assignment: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        load_with(assignment)


def test_every_problem_is_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        load(None, ["num_partitions=0", "foo=1"], {"STRANDLINE_FLUSH": "x"})
    assert len(str(caught.value).splitlines()) == 3
    assert "environment: flush" in str(caught.value)


def test_what_identifies_a_broker_is_needed() -> None:
    with pytest.raises(ConfigError, match="broker_id: needed"):
        load(None, ["data_dir=/d", "store=sqlite:/d/c"], {})


def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "broker.yaml"
    file.write_text("- a\n")
    with pytest.raises(ConfigError, match="key: value"):
        load(file, NEEDED, {})
    file.write_text("rack: {a: b}\n")
    with pytest.raises(ConfigError, match="not a mapping"):
        load(file, NEEDED, {})
    file.write_text("rack: [")
    with pytest.raises(ConfigError, match="not YAML"):
        load(file, NEEDED, {})


def test_defaults_lie_within_their_own_limits_and_are_documented() -> None:
    for field in fields(BrokerConfig):
        spec = spec_of(field.metadata)
        assert spec.doc.endswith("."), field.name
        if isinstance(field.default, int) and field.name != "broker_id":
            assert spec.minimum is None or field.default >= spec.minimum, field.name
            assert spec.maximum is None or field.default <= spec.maximum, field.name


def test_the_defaults_make_limits_for_the_network() -> None:
    limits = load_with("max.connections=7").net_limits()
    assert (limits.max_connections, limits.max_frame_bytes) == (7, 100 << 20)


def test_kafka_configs_show_kafkas_names_and_defaults() -> None:
    shown = load_with("num_partitions=2").kafka_configs()
    assert shown["node.id"][0] == "3"
    partitions = "Partitions of a topic created without a number."
    assert shown["num.partitions"] == ("2", "INT", partitions, "1")
    assert shown["auto.create.topics.enable"][:2] == ("true", "BOOLEAN")
    assert shown["auto.create.topics.enable"][3] == "true"
    assert shown["queued.max.request.bytes"][1] == "LONG"
    assert shown["strandline.flush"][0] == "Fsync"
