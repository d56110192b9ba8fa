from __future__ import annotations

import pytest

from strandline_broker.server.config import BrokerConfig, ConfigError, load
from strandline_broker.server.listeners import Listener

KEYS = ["broker_id=0", "data_dir=/d", "store=sqlite:/d/c"]
TLS = ["ssl_certificate_file=/c.pem", "ssl_key_file=/k.pem"]
FOUR = [
    "listeners=A://h:1,B://h:2,C://h:3,D://h:4",
    "listener.security.protocol.map=A:PLAINTEXT,B:SSL,C:SASL_PLAINTEXT,D:SASL_SSL",
    "sasl_users_file=/u.yaml",
    *TLS,
]


def config(*assignments: str) -> BrokerConfig:
    return load(None, [*KEYS, *assignments], {})


def listeners(*assignments: str) -> dict[str, Listener]:
    return {listener.name: listener for listener in config(*assignments).resolve_listeners()}


def test_four_protocols() -> None:
    found = listeners(*FOUR)
    assert [listener.tls for listener in found.values()] == [False, True, False, True]
    scram = ("SCRAM-SHA-256", "SCRAM-SHA-512")
    assert [listener.sasl_mechanisms for listener in found.values()] == [(), (), scram, scram]


def test_names_of_protocols_are_names_of_listeners() -> None:
    found = listeners("listeners=SASL_SSL://h:1", "sasl_users_file=/u", *TLS)
    assert found["SASL_SSL"].tls
    assert found["SASL_SSL"].sasl_mechanisms


def test_mechanisms_for_all_and_for_each() -> None:
    found = listeners(*FOUR, "sasl.enabled.mechanisms=PLAIN, scram-sha-512,PLAIN")
    assert found["C"].sasl_mechanisms == found["D"].sasl_mechanisms == ("PLAIN", "SCRAM-SHA-512")
    found = listeners(*FOUR, "sasl_enabled_mechanisms=C=SCRAM-SHA-256,D=PLAIN+SCRAM-SHA-256")
    assert (found["C"].sasl_mechanisms, found["D"].sasl_mechanisms) == (
        ("SCRAM-SHA-256",),
        ("PLAIN", "SCRAM-SHA-256"),
    )


def test_who_has_to_show_a_certificate() -> None:
    ca = "ssl_client_ca_file=/ca.pem"
    for value in ("none", "requested", "required"):
        found = listeners(*FOUR, ca, f"ssl.client.auth={value}")
        assert [listener.client_auth for listener in found.values()] == ["none", value, "none", "none"]
    found = listeners(*FOUR, ca, "ssl_client_auth=D=required")
    assert [listener.client_auth for listener in found.values()] == ["none", "none", "none", "required"]


@pytest.mark.parametrize(
    ("assignments", "why"),
    [
        ([*FOUR, "sasl_users_file="], "sasl_users_file: needed for SASL listeners"),
        ([*FOUR, "sasl_enabled_mechanisms=GSSAPI"], "'GSSAPI' is not supported; use PLAIN, SCRAM-SHA-256"),
        ([*FOUR, "sasl_enabled_mechanisms="], "listener C needs at least one of"),
        ([*FOUR, "sasl_enabled_mechanisms=C=PLAIN"], "listener D needs at least one of"),
        ([*FOUR, "sasl_enabled_mechanisms=A=PLAIN"], "does not name a listener; there are C, D"),
        ([*FOUR, "ssl_client_auth=maybe"], "'maybe' is not one of none, requested, required"),
        ([*FOUR, "ssl_client_auth=B=maybe"], "'maybe' is not one of none, requested, required"),
        ([*FOUR, "ssl_client_auth=C=required"], "does not name a listener; there are B, D"),
        ([*FOUR, "ssl_client_auth=required"], "set ssl_client_ca_file for listener B"),
        (["listeners=SASL_SSL://h:1", "sasl_users_file=/u"], "listener SASL_SSL is SASL_SSL: set ssl_certificate_file"),
        (["listeners=X://h:1", "listener_security_protocol_map=X:KERBEROS"], "SASL_PLAINTEXT or SASL_SSL"),
        (["listeners=X://h:1"], "no security protocol for listener X"),
        (["ssl_client_auth=maybe"], "'maybe' is not one of"),
        ([*FOUR, "inter_broker_listener_name=C"], "listener C is between brokers"),
        (["connection.failed.authentication.delay.ms=600000"], "must be below connections_max_idle_ms=600000"),
        (["connections.max.reauth.ms=-1"], "below 0"),
    ],
)  # fmt: skip
def test_what_is_refused(assignments: list[str], why: str) -> None:
    with pytest.raises(ConfigError) as refused:
        config(*assignments)
    assert why in str(refused.value)
