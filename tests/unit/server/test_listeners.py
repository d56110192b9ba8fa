from __future__ import annotations

import pytest

from strandline_broker.server.config import BrokerConfig, ConfigError
from strandline_broker.server.listeners import Endpoint, Listener, parse_endpoints


def listeners(**keys: str) -> tuple[Listener, ...]:
    keys = {"inter_broker_token_file": "/t"} | keys
    config = BrokerConfig(broker_id=0, data_dir="/d", store="sqlite:/d/c", **keys)  # type: ignore[arg-type]
    return config.resolve_listeners()


def test_endpoints() -> None:
    assert parse_endpoints("a://:0, B-2://[::1]:65535", "listeners") == (
        Endpoint("A", "", 0),
        Endpoint("B-2", "::1", 65535),
    )


def test_clients_are_told_the_advertised_address() -> None:
    (listener,) = listeners(
        listeners="PLAINTEXT://0.0.0.0:9092", advertised_listeners="PLAINTEXT://kafka.example:19092"
    )
    assert (listener.host, listener.port) == ("0.0.0.0", 9092)
    assert (listener.advertised_host, listener.advertised_port) == ("kafka.example", 19092)


def test_what_is_not_advertised_is_advertised_as_it_listens() -> None:
    (listener,) = listeners(listeners="PLAINTEXT://127.0.0.1:0")
    assert (listener.advertised_host, listener.advertised_port) == ("127.0.0.1", 0)
    (listener,) = listeners(listeners="PLAINTEXT://:9092")
    assert listener.host == "0.0.0.0"
    assert listener.advertised_host not in ("", "0.0.0.0")


def test_protocols_certificates_and_the_internal_listener() -> None:
    plain, tls, brokers = listeners(
        listeners="PLAIN://h:1,EXTERNAL://h:2,BROKERS://h:3",
        listener_security_protocol_map="PLAIN:PLAINTEXT,EXTERNAL:SSL,BROKERS:PLAINTEXT",
        inter_broker_listener_name="BROKERS",
        ssl_certificate_file="EXTERNAL=/c.pem",
        ssl_key_file="/k.pem",
    )
    assert not plain.tls
    assert plain.key_file is None
    assert (tls.tls, tls.certificate_file, tls.key_file, tls.client_auth) == (
        True,
        "/c.pem",
        "/k.pem",
        "none",
    )
    assert [plain.internal, tls.internal, brokers.internal] == [False, False, True]


def test_the_listener_between_brokers_needs_a_token_and_no_protocol() -> None:
    keys = {"listeners": "PLAINTEXT://h:1,inside://h:2", "inter_broker_listener_name": "INSIDE"}
    client, inside = listeners(**keys)
    assert (client.internal, inside.internal, inside.security_protocol) == (False, True, "PLAINTEXT")
    with pytest.raises(
        ConfigError, match="inter_broker_token_file: needed for listener INSIDE between brokers"
    ):
        listeners(**keys, inter_broker_token_file="")


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({"listeners": ""}, "at least one listener"),
        ({"listeners": "PLAINTEXT:9092"}, "is not NAME://host:port"),
        ({"listeners": "PLAINTEXT://h:70000"}, "above 65535"),
        ({"listeners": "PLAINTEXT://h:1,plaintext://h:2"}, "two listeners are named PLAINTEXT"),
        ({"listeners": "PLAINTEXT://h:1,SSL://h:1"}, "use port 1"),
        ({"listeners": "FOO://h:1"}, "no security protocol for listener FOO"),
        ({"listener_security_protocol_map": "A:KERBEROS"}, "not supported"),
        ({"listener_security_protocol_map": "A"}, "is not NAME:PROTOCOL"),
        ({"listeners": "PLAINTEXT://0.0.0.0:1"}, "cannot connect to 0.0.0.0"),
        ({"advertised_listeners": "SSL://h:1"}, "SSL is none of the listeners"),
        ({"inter_broker_listener_name": "X"}, "none of the listeners"),
        ({"inter_broker_listener_name": "PLAINTEXT"}, "clients need one as well"),
        (
            {"listeners": "PLAINTEXT://h:1,SSL://h:2", "inter_broker_listener_name": "SSL"},
            "listener SSL is between brokers",
        ),
        ({"listeners": "SSL://h:1"}, "set ssl_certificate_file and ssl_key_file"),
        ({"listeners": "PLAINTEXT://h:1", "ssl_key_file": "X=k"}, "does not name a listener"),
        (
            {
                "listeners": "SSL://h:1",
                "ssl_key_file": "k",
                "ssl_certificate_file": "c",
                "ssl_client_auth": "required",
            },
            "set ssl_client_ca_file",
        ),
    ],
)
def test_refused(keys: dict[str, str], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        listeners(**keys)
