"""The one configuration of a broker: every key with its type, default and documentation.

`load` is called by the command line; everybody else receives a finished, frozen `BrokerConfig`. A value comes
from `--set`, else from the environment (`STRANDLINE_<KEY>`), else from the YAML file, else it is the default.
Keys are written as here or under Kafka's name for the same setting (`socket.request.max.bytes`).

What is *not* here: defaults for topic configurations (`retention.ms`, `min.insync.replicas`, ...). They
belong to the cluster, not to one broker: `Cluster.spec.config`.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from strandline_broker.cluster.topic_config import TOPIC_CONFIGS, suggest
from strandline_broker.group.config import GroupConfig
from strandline_broker.net.limits import MAX_FRAME_BYTES_CEILING, Limits
from strandline_broker.server.config_keys import INT_MAX, convert, key, spec_of
from strandline_broker.server.config_sources import (
    ENVIRONMENT_PREFIX,
    ConfigError,
    from_assignments,
    from_environment,
    from_file,
)
from strandline_broker.server.config_tiering import TieringConfig
from strandline_broker.server.listeners import Listener, ListenerSettings, resolve

__all__ = [
    "KNOWN_KEYS",
    "LEADER_SELECTOR",
    "RACK_AWARE_REPLICA_SELECTOR",
    "BrokerConfig",
    "ConfigError",
    "load",
]

# Kafka's names of the two ways to choose a replica for a consumer; `replica_selector_class` is one of them or unset.
LEADER_SELECTOR = "org.apache.kafka.common.replica.LeaderSelector"
RACK_AWARE_REPLICA_SELECTOR = "org.apache.kafka.common.replica.RackAwareReplicaSelector"


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerConfig(TieringConfig):
    """Configuration of one broker; `key()` carries the documentation of each field.

    Constructing one checks the keys against each other and raises ConfigError.
    """

    # Identity
    broker_id: int = key(
        -1, "Number of this broker in its cluster.", kafka="node.id", minimum=0, maximum=INT_MAX
    )
    cluster_name: str = key("dev", "Name of the Cluster object that this broker belongs to.")
    cluster_id: str | None = key(
        None,
        "Id of the cluster; a volume that holds another id is refused. Unset: as the volume or ClusterState says.",
    )
    data_dir: str = key("", "Directory for everything that this broker keeps.", kafka="log.dirs")
    store: str = key("", "Where cluster state lives: `sqlite:PATH`, or `kubernetes`.")
    namespace: str = key("default", "Kubernetes namespace of the Cluster, with store=kubernetes.")
    rack: str | None = key(
        None, "Failure domain of this broker; replicas are spread over racks.", kafka="broker.rack"
    )
    placement_file: str | None = key(
        None,
        "JSON file with rack and advertised addresses, which win over what is configured; followed while the broker runs.",
    )
    placement_wait_ms: int = key(
        0, "Time that a starting broker waits for something in placement_file.", minimum=0, maximum=INT_MAX
    )
    termination_message_file: str | None = key(
        None, "File that says which incarnation runs, for whoever sees the process end."
    )

    # Listeners
    listeners: str = key("PLAINTEXT://:9092", "Where to listen: NAME://host:port,...", kafka="listeners")
    advertised_listeners: str | None = key(
        None, "What clients are told to connect to, where that differs.", kafka="advertised.listeners"
    )
    listener_security_protocol_map: str = key(
        "",
        "NAME:PLAINTEXT, NAME:SSL, NAME:SASL_PLAINTEXT or NAME:SASL_SSL for each listener.",
        kafka="listener.security.protocol.map",
    )
    inter_broker_listener_name: str | None = key(
        None,
        "Listener that only brokers may use; needed to replicate. Its protocol is PLAINTEXT.",
        kafka="inter.broker.listener.name",
    )
    inter_broker_token_file: str | None = key(
        None,
        "File with the secret by which brokers know each other: at least 32 random characters, the same for all brokers. "
        "Reloaded when it changes.",
    )
    ssl_certificate_file: str | None = key(
        None, "PEM certificate chain of SSL listeners: one path, or NAME=path,... Reloaded when it changes."
    )
    ssl_key_file: str | None = key(None, "PEM private key of SSL listeners: one path, or NAME=path,...")
    ssl_client_ca_file: str | None = key(
        None, "PEM authorities that client certificates are checked with: one path, or NAME=path,..."
    )
    ssl_client_auth: str = key(
        "none",
        "Whether clients must show a certificate: none, requested or required for SSL listeners, or NAME=required,... "
        "(SASL_SSL listeners only by name). The certificate's subject is the client's principal on SSL listeners.",
        kafka="ssl.client.auth",
    )
    sasl_enabled_mechanisms: str = key(
        "SCRAM-SHA-256,SCRAM-SHA-512",
        "How clients of SASL listeners may log in: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512; or NAME=PLAIN+SCRAM-SHA-256,...",
        kafka="sasl.enabled.mechanisms",
    )
    sasl_users_file: str | None = key(
        None,
        "YAML or JSON file of the users of SASL listeners, made by `strandline users add`. Reloaded when it changes.",
    )
    sasl_server_max_receive_size: int = key(
        512 << 10,
        "Largest request of a client that is not authenticated yet, in bytes.",
        kafka="sasl.server.max.receive.size",
        minimum=1024,
        maximum=INT_MAX,
    )
    sasl_authentication_timeout_ms: int = key(
        30_000, "Time that a client of a SASL listener has to authenticate.", minimum=1, maximum=INT_MAX
    )
    connection_failed_authentication_delay_ms: int = key(
        100,
        "Time after which a failed authentication is answered and its connection closed.",
        kafka="connection.failed.authentication.delay.ms",
        minimum=0,
        maximum=INT_MAX,
    )
    connections_max_reauth_ms: int = key(
        0,
        "Time after which a client has to authenticate again on the same connection (KIP-368); 0 means never.",
        kafka="connections.max.reauth.ms",
        minimum=0,
    )
    http_host: str = key("127.0.0.1", "Address of the HTTP port (health, metrics, /v1/partitions).")
    http_port: int = key(
        -1, "HTTP port; 0 takes any free one, -1 switches it off.", minimum=-1, maximum=65535
    )

    # Topics
    auto_create_topics_enable: bool = key(
        default=True,
        doc="Whether a client that asks for an unknown topic creates it.",
        kafka="auto.create.topics.enable",
    )
    num_partitions: int = key(
        1,
        "Partitions of a topic created without a number.",
        kafka="num.partitions",
        minimum=1,
        maximum=10_000,
    )
    default_replication_factor: int = key(
        1,
        "Replicas of a topic created without a number.",
        kafka="default.replication.factor",
        minimum=1,
        maximum=32767,
    )

    # Durability and the log
    flush: str = key(
        "Fsync",
        "When a record counts as written: `Fsync` when the disk has it, `Replicated` from memory on the "
        "in-sync replicas, as Kafka does.",
        choices=("Fsync", "Replicated"),
    )
    log_retention_check_interval_ms: int = key(
        300_000,
        "Time between two looks for segments to delete.",
        kafka="log.retention.check.interval.ms",
        minimum=1,
    )
    log_flush_offset_checkpoint_interval_ms: int = key(
        60_000,
        "Time between two writes of the recovery points.",
        kafka="log.flush.offset.checkpoint.interval.ms",
        minimum=1,
    )
    replica_high_watermark_checkpoint_interval_ms: int = key(
        5_000,
        "Time between two writes of the high watermarks.",
        kafka="replica.high.watermark.checkpoint.interval.ms",
        minimum=1,
    )
    producer_id_expiration_ms: int = key(
        86_400_000,
        "Idle time after which an idempotent producer's sequence is forgotten.",
        kafka="producer.id.expiration.ms",
        minimum=1,
    )
    log_open_files_max: int = key(4_000, "Segment files kept open at once.", minimum=64)
    log_cleaner_enable: bool = key(
        default=True,
        doc="Whether logs with cleanup.policy=compact are compacted.",
        kafka="log.cleaner.enable",
    )
    log_cleaner_dedupe_buffer_size: int = key(
        128 << 20,
        "Memory for the keys of one cleaning, about 200 bytes each; a log with more is cleaned in several.",
        kafka="log.cleaner.dedupe.buffer.size",
        minimum=1 << 20,
    )
    log_cleaner_io_buffer_size: int = key(
        512 << 10,
        "Bytes that the log cleaner reads at once; a larger batch is read whole.",
        kafka="log.cleaner.io.buffer.size",
        minimum=4096,
        maximum=INT_MAX,
    )
    log_cleaner_io_max_bytes_per_second: int = key(
        0,
        "What the log cleaner may read and write together, on average; 0 for no limit.",
        kafka="log.cleaner.io.max.bytes.per.second",
        minimum=0,
    )
    log_cleaner_backoff_ms: int = key(
        15_000,
        "Time until the log cleaner looks again after it found nothing to do.",
        kafka="log.cleaner.backoff.ms",
        minimum=1,
    )

    # Replication
    replica_lag_time_max_ms: int = key(
        30_000,
        "Time without having been caught up after which a follower leaves the ISR.",
        kafka="replica.lag.time.max.ms",
        minimum=1,
    )
    replica_fetch_max_bytes: int = key(
        1 << 20,
        "Bytes of one partition in one answer to a follower; a larger batch is sent whole.",
        kafka="replica.fetch.max.bytes",
        minimum=0,
        maximum=INT_MAX,
    )
    replica_fetch_response_max_bytes: int = key(
        10 << 20,
        "Bytes in one answer to a follower; a larger batch is sent whole.",
        kafka="replica.fetch.response.max.bytes",
        minimum=0,
        maximum=INT_MAX,
    )
    replica_fetch_wait_max_ms: int = key(
        500,
        "Time that a leader may hold a follower's fetch until there are enough bytes.",
        kafka="replica.fetch.wait.max.ms",
        minimum=0,
        maximum=INT_MAX,
    )
    replica_fetch_min_bytes: int = key(
        1,
        "Bytes that a follower's fetch waits for.",
        kafka="replica.fetch.min.bytes",
        minimum=0,
        maximum=INT_MAX,
    )
    replica_fetch_backoff_ms: int = key(
        1_000,
        "Time until a follower tries a partition again whose fetch failed.",
        kafka="replica.fetch.backoff.ms",
        minimum=0,
        maximum=INT_MAX,
    )
    replica_selector_class: str | None = key(
        None,
        "Which replica consumers are sent to (KIP-392): the leader (unset, or Kafka's LeaderSelector), or with "
        "`org.apache.kafka.common.replica.RackAwareReplicaSelector` one in the rack that they name.",
        kafka="replica.selector.class",
    )

    # Limits: what happens at each is back-pressure or a clear error, never growth
    socket_request_max_bytes: int = key(
        100 << 20,
        "Largest request; a larger one closes its connection.",
        kafka="socket.request.max.bytes",
        minimum=1024,
        maximum=MAX_FRAME_BYTES_CEILING,
    )
    queued_max_request_bytes: int = key(
        256 << 20,
        "Memory for requests that have begun to arrive; when it is used up, connections are not read.",
        kafka="queued.max.request.bytes",
        minimum=1 << 20,
    )
    socket_backlog_max_bytes: int = key(
        8 << 20, "Unsent answers of one connection above which it is not read.", minimum=1 << 16
    )
    max_connections: int = key(
        10_000, "Connections at once.", kafka="max.connections", minimum=1, maximum=INT_MAX
    )
    max_connections_per_ip: int = key(
        10_000,
        "Connections at once from one address.",
        kafka="max.connections.per.ip",
        minimum=1,
        maximum=INT_MAX,
    )
    max_requests_in_flight_per_connection: int = key(
        1_000, "Unanswered requests of one connection above which it is not read.", minimum=1
    )
    connections_max_idle_ms: int = key(
        600_000, "Idle time after which a connection is closed.", kafka="connections.max.idle.ms", minimum=1
    )
    partial_request_timeout_ms: int = key(
        30_000, "Time that a request may take to arrive once its first byte is here.", minimum=1
    )
    tls_handshake_timeout_ms: int = key(10_000, "Time that a TLS handshake may take.", minimum=1)
    fetch_max_bytes: int = key(
        55 << 20,
        "Most bytes in one answer to a fetch.",
        kafka="fetch.max.bytes",
        minimum=1024,
        maximum=INT_MAX,
    )
    fetch_parked_max: int = key(
        20_000, "Fetches that may wait for data at once; above, they are answered empty."
    )
    max_incremental_fetch_session_cache_slots: int = key(
        1_000,
        "Fetch sessions kept (KIP-227); above, clients get answers without a session.",
        kafka="max.incremental.fetch.session.cache.slots",
        minimum=0,
    )
    request_timeout_max_ms: int = key(
        600_000, "Longest time that a request may wait, whatever it asks for.", minimum=1
    )

    # Groups
    group_min_session_timeout_ms: int = key(
        6_000,
        "Shortest session timeout of a group's member.",
        kafka="group.min.session.timeout.ms",
        minimum=1,
        maximum=INT_MAX,
    )
    group_max_session_timeout_ms: int = key(
        1_800_000,
        "Longest session timeout of a group's member.",
        kafka="group.max.session.timeout.ms",
        minimum=1,
        maximum=INT_MAX,
    )
    group_initial_rebalance_delay_ms: int = key(
        3_000,
        "Time that an empty group waits for more members before its first rebalance.",
        kafka="group.initial.rebalance.delay.ms",
        minimum=0,
        maximum=INT_MAX,
    )
    group_max_size: int = key(
        INT_MAX, "Members of one group.", kafka="group.max.size", minimum=1, maximum=INT_MAX
    )
    offset_metadata_max_bytes: int = key(
        4_096,
        "Longest metadata of a committed offset, in characters.",
        kafka="offset.metadata.max.bytes",
        minimum=0,
        maximum=INT_MAX,
    )
    offsets_retention_minutes: int = key(
        10_080,
        "Time that offsets are kept after their group became empty.",
        kafka="offsets.retention.minutes",
        minimum=1,
        maximum=INT_MAX,
    )
    offsets_retention_check_interval_ms: int = key(
        600_000,
        "Time between two looks for offsets to forget.",
        kafka="offsets.retention.check.interval.ms",
        minimum=1,
        maximum=INT_MAX,
    )
    offsets_commit_timeout_ms: int = key(
        5_000,
        "Time that the commit of an offset or of a group's state may take.",
        kafka="offsets.commit.timeout.ms",
        minimum=1,
        maximum=INT_MAX,
    )

    # Cluster membership
    lease_duration_ms: int = key(
        10_000, "Time without renewal after which the broker counts as dead.", minimum=100
    )
    lease_renew_ms: int = key(3_000, "Time between two renewals of the Lease.", minimum=10)
    shutdown_timeout_ms: int = key(
        30_000,
        "Time that a stopping broker waits for its leaderships to move before it stops anyway.",
        minimum=0,
    )
    log_level: str = key("INFO", "What is logged.", choices=("DEBUG", "INFO", "WARNING", "ERROR"))

    def __post_init__(self) -> None:
        """Check what one key alone does not show."""
        problems = [f"{name}: needed, and not set" for name in _REQUIRED if getattr(self, name) in ("", -1)]
        if self.store and self.store != "kubernetes" and not self.store.removeprefix("sqlite:").strip():
            problems.append("store: sqlite: needs a path, as in sqlite:/var/lib/strandline/cluster.db")
        elif self.store and self.store != "kubernetes" and not self.store.startswith("sqlite:"):
            problems.append(f"store: {self.store!r} is neither sqlite:PATH nor kubernetes")
        if self.lease_renew_ms * 2 > self.lease_duration_ms:
            problems.append(
                f"lease_renew_ms: {self.lease_renew_ms} leaves no time for a retry within lease_duration_ms="
                f"{self.lease_duration_ms}; at most half of it works"
            )
        if self.connection_failed_authentication_delay_ms >= self.connections_max_idle_ms:
            problems.append(
                "connection_failed_authentication_delay_ms: must be below connections_max_idle_ms="
                f"{self.connections_max_idle_ms}"
            )
        if self.replica_fetch_wait_max_ms > self.replica_lag_time_max_ms:
            problems.append(
                f"replica_fetch_wait_max_ms: must not be above replica_lag_time_max_ms={self.replica_lag_time_max_ms}, "
                "or followers would leave the ISR while they wait"
            )
        if self.replica_selector_class not in (None, LEADER_SELECTOR, RACK_AWARE_REPLICA_SELECTOR):
            problems.append(
                f"replica_selector_class: {self.replica_selector_class!r} is neither {LEADER_SELECTOR} nor "
                f"{RACK_AWARE_REPLICA_SELECTOR}"
            )
        for check in (self.net_limits, self._check_listeners, self.check_tiering):
            try:
                check()
            except ValueError as error:
                problems.append(str(error))
        if problems:
            raise ConfigError("\n".join(problems))

    def _check_listeners(self) -> None:
        listeners = self.resolve_listeners()
        if any(listener.sasl_mechanisms for listener in listeners) and not self.sasl_users_file:
            raise ValueError("sasl_users_file: needed for SASL listeners; `strandline users add` makes one")
        for listener in listeners:
            if listener.internal and not self.inter_broker_token_file:
                raise ValueError(
                    f"inter_broker_token_file: needed for listener {listener.name} between brokers; "
                    "`openssl rand -hex 32` makes a token, the same for all brokers"
                )

    def resolve_listeners(self) -> tuple[Listener, ...]:
        """Return the listeners with protocols, certificates and advertised addresses."""
        settings = ListenerSettings(
            listeners=self.listeners,
            advertised_listeners=self.advertised_listeners,
            protocol_map=self.listener_security_protocol_map,
            inter_broker_listener_name=self.inter_broker_listener_name,
            certificate_files=self.ssl_certificate_file,
            key_files=self.ssl_key_file,
            client_ca_files=self.ssl_client_ca_file,
            client_auth=self.ssl_client_auth,
            sasl_mechanisms=self.sasl_enabled_mechanisms,
        )
        return resolve(settings, socket.gethostname())

    def kafka_configs(self) -> dict[str, tuple[str | None, str, str, str | None]]:
        """Return {name: (value, Kafka type, documentation, default)} for DescribeConfigs.

        Keys that Kafka does not have are shown as `strandline.<key>`.
        """
        shown = {}
        for field in fields(self):
            spec = spec_of(field.metadata)
            kind = _TYPES[str(field.type)]
            large = kind is int and (spec.maximum is None or spec.maximum > INT_MAX)
            type_name = "BOOLEAN" if kind is bool else "STRING" if kind is str else "LONG" if large else "INT"
            name = spec.kafka or f"strandline.{field.name.replace('_', '.')}"
            shown[name] = (_text(getattr(self, field.name)), type_name, spec.doc, _text(field.default))
        return shown

    def group_config(self) -> GroupConfig:
        """Return the settings of the group coordinator."""
        return GroupConfig(
            min_session_timeout_ms=self.group_min_session_timeout_ms,
            max_session_timeout_ms=self.group_max_session_timeout_ms,
            initial_rebalance_delay_ms=self.group_initial_rebalance_delay_ms,
            max_size=self.group_max_size,
            offset_metadata_max_bytes=self.offset_metadata_max_bytes,
            offsets_retention_minutes=self.offsets_retention_minutes,
            offsets_retention_check_interval_ms=self.offsets_retention_check_interval_ms,
        )

    def net_limits(self) -> Limits:
        """Return the bounds of the network part."""
        return Limits(
            max_frame_bytes=self.socket_request_max_bytes,
            max_connections=self.max_connections,
            max_connections_per_address=self.max_connections_per_ip,
            max_in_flight_requests=self.max_requests_in_flight_per_connection,
            request_memory_bytes=self.queued_max_request_bytes,
            output_backlog_bytes=self.socket_backlog_max_bytes,
            idle_timeout_ms=self.connections_max_idle_ms,
            frame_timeout_ms=self.partial_request_timeout_ms,
            tls_handshake_timeout_ms=self.tls_handshake_timeout_ms,
        )


def _text(value: object) -> str | None:
    return None if value is None else str(value).lower() if isinstance(value, bool) else str(value)


_REQUIRED = ("broker_id", "data_dir", "store")
_TYPES: dict[str, type] = {"int": int, "bool": bool, "str": str, "str | None": str}


def _known() -> dict[str, str]:
    """Return the field behind every accepted spelling."""
    known = {field.name: field.name for field in fields(BrokerConfig)}
    for field in fields(BrokerConfig):
        kafka = spec_of(field.metadata).kafka
        if kafka is not None:
            known[kafka.replace(".", "_")] = field.name
    known["log_dir"] = "data_dir"
    return known


KNOWN_KEYS: Mapping[str, str] = _known()
"""Every accepted spelling, with underscores, of every key."""

_FIELDS = {field.name: field for field in fields(BrokerConfig)}
_TOPIC_KEYS = {
    synonym.replace(".", "_"): config.name
    for config in TOPIC_CONFIGS.values()
    for synonym in (config.name, *config.broker_synonyms)
}


def load(
    file: str | Path | None = None,
    assignments: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> BrokerConfig:
    """Read a configuration: `assignments` (`key=value`) win over the environment, and that over the file.

    Raises ConfigError with one line per problem; OSError when the file cannot be read.
    """
    problems: list[str] = []
    values: dict[str, object] = {}
    for source, given in (
        (str(file), from_file(file) if file is not None else {}),
        ("environment", from_environment(os.environ if environment is None else environment)),
        ("--set", from_assignments(assignments)),
    ):
        for spelling, raw in given.items():
            try:
                name = _field_name(spelling)
                field = _FIELDS[name]
                value = convert(name, _TYPES[str(field.type)], spec_of(field.metadata), raw)
            except ValueError as error:
                problems.append(f"{source}: {error}")
                continue
            values[name] = None if value == "" and field.default is None else value
    if problems:
        raise ConfigError("\n".join(problems))
    return BrokerConfig(**values)  # type: ignore[arg-type]  # converted to each field's type above


def _field_name(spelling: str) -> str:
    normal = spelling.strip().removeprefix(ENVIRONMENT_PREFIX).lower().replace(".", "_").replace("-", "_")
    name = KNOWN_KEYS.get(normal)
    if name is not None:
        return name
    topic_key = _TOPIC_KEYS.get(normal)
    if topic_key is not None:
        raise ValueError(
            f"{spelling} is not a broker's setting here: set {topic_key} in the Cluster's spec.config, "
            "or on a Topic"
        )
    raise ValueError(f"unknown key {spelling}{suggest(normal, KNOWN_KEYS)}")
