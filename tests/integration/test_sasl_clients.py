"""Logins of clients that others wrote, with and without TLS, right and wrong; and certificates as identity."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import shutil
import subprocess
import time
import warnings
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import aiokafka  # type: ignore[import-untyped]
import confluent_kafka
import pytest
from aiokafka.helpers import create_ssl_context  # type: ignore[import-untyped]
from tests.integration.support import cluster, leads, run, running, until
from tests.unit.net.certificates import Authority
from tests.unit.security.support import entry

from strandline_broker.api.support.brokers import live_brokers
from strandline_broker.net.metrics import CloseReason
from strandline_broker.server.broker import Broker

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # of importlib.resources, by kafka-python
    import kafka  # type: ignore[import-untyped]

MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
PROTOCOLS = ("SASL_PLAINTEXT", "SASL_SSL")
PASSWORD = "geheim =,\u00e4"
TOPIC = "t"


class Site:
    """A broker with a listener of each kind."""

    def __init__(self, broker: Broker, authority: Authority, directory: Path) -> None:
        self.broker = broker
        self.authority = authority
        self.directory = directory

    def bootstrap(self, listener: str) -> str:
        return f"localhost:{self.broker.server.address(listener)[1]}"

    def principals(self, listener: str) -> set[str]:
        return {
            connection.principal
            for connection in self.broker.server.connections
            if connection.listener.name == listener
        }

    def closed(self, reason: CloseReason) -> int:
        return self.broker.server.metrics.closed[reason]


@contextlib.asynccontextmanager
async def site(directory: Path, **keys: str) -> AsyncIterator[Site]:
    authority = Authority(directory)
    server = authority.issue("server", "localhost")
    users = directory / "users.json"
    users.write_text(json.dumps({"users": {"alice": entry(PASSWORD)}}))
    names = (*PROTOCOLS, "SSL", "MAYBE", "MUST", "BOTH", "PLAINTEXT")
    settings = {
        "listeners": ",".join(f"{name}://127.0.0.1:0" for name in names),
        "advertised_listeners": ",".join(f"{name}://localhost:0" for name in names),
        "listener_security_protocol_map": "MAYBE:SSL,MUST:SSL,BOTH:SASL_SSL",
        "sasl_enabled_mechanisms": ",".join(MECHANISMS),
        "sasl_users_file": str(users),
        "ssl_certificate_file": server.cert_path,
        "ssl_key_file": server.key_path,
        "ssl_client_ca_file": str(authority.ca_path),
        "ssl_client_auth": "MAYBE=requested,MUST=required,BOTH=required",
    }
    async with cluster(directory) as made, running(made, **(settings | keys)) as broker:
        await made.create_topic(TOPIC)
        await leads(broker, TOPIC)
        await until(lambda: len(live_brokers(broker.view, "SASL_SSL")) == 1)
        yield Site(broker, authority, directory)


def librdkafka(here: Site, protocol: str, mechanism: str, password: str) -> dict[str, Any]:
    return {
        "bootstrap.servers": here.bootstrap(protocol),
        "security.protocol": protocol,
        "sasl.mechanism": mechanism,
        "sasl.username": "alice",
        "sasl.password": password,
        "ssl.ca.location": str(here.authority.ca_path),
        "broker.address.family": "v4",
        "reconnect.backoff.ms": "500",
    }


def confluent_login(here: Site, protocol: str, mechanism: str, password: str) -> str:
    """Produce and consume; return the client's complaint."""
    complaints: list[str] = []
    config = librdkafka(here, protocol, mechanism, password)
    config |= {
        "error_cb": lambda error: complaints.append(error.str()),
        "logger": logging.getLogger("rdkafka"),
    }
    producer = confluent_kafka.Producer(config)
    producer.produce(TOPIC, b"x")
    deadline = time.monotonic() + 15
    while len(producer) and not complaints and time.monotonic() < deadline:
        producer.poll(0.05)
    if len(producer):
        producer.purge()
        return " ".join(complaints)
    consumer = confluent_kafka.Consumer(config | {"group.id": "g"})
    try:
        low, high = consumer.get_watermark_offsets(confluent_kafka.TopicPartition(TOPIC, 0), timeout=15)
        assert high > low >= 0
    finally:
        consumer.close()
    return ""


def kafka_python_login(here: Site, protocol: str, mechanism: str, password: str) -> str:
    """Produce; return the client's complaint."""
    try:
        producer = kafka.KafkaProducer(
            bootstrap_servers=here.bootstrap(protocol),
            security_protocol=protocol,
            sasl_mechanism=mechanism,
            sasl_plain_username="alice",
            sasl_plain_password=password,
            ssl_cafile=str(here.authority.ca_path),
            bootstrap_timeout_ms=1_000,
        )
    except kafka.errors.KafkaError as error:
        return repr(error)
    try:
        producer.send(TOPIC, b"x").get(timeout=15)
    finally:
        producer.close(timeout=5)
    return ""


async def aiokafka_login(here: Site, protocol: str, mechanism: str, password: str) -> str:
    """Produce; return the client's complaint."""
    tls = create_ssl_context(cafile=str(here.authority.ca_path)) if protocol == "SASL_SSL" else None
    producer = aiokafka.AIOKafkaProducer(
        bootstrap_servers=here.bootstrap(protocol),
        security_protocol=protocol,
        sasl_mechanism=mechanism,
        sasl_plain_username="alice",
        sasl_plain_password=password,
        ssl_context=tls,
    )
    try:
        await producer.start()
        await producer.send_and_wait(TOPIC, b"x")
    except aiokafka.errors.KafkaError as error:
        return repr(error)
    finally:
        await producer.stop()
    return ""


def kcat_login(here: Site, protocol: str, mechanism: str, password: str) -> str:
    """Ask for metadata; return the client's complaint."""
    config = librdkafka(here, protocol, mechanism, password)
    command = ["kcat", "-L", "-m", "2", "-b", config.pop("bootstrap.servers")]
    for name, value in config.items():
        command += ["-X", f"{name}={value}"]
    done = subprocess.run(command, capture_output=True, timeout=30, check=False, text=True)
    assert (done.returncode == 0) == (f'topic "{TOPIC}"' in done.stdout)
    return "" if done.returncode == 0 else done.stderr


LOGINS: dict[str, Callable[..., Any]] = {
    "confluent-kafka": confluent_login,
    "kafka-python": kafka_python_login,
    "aiokafka": aiokafka_login,
    "kcat": kcat_login,
}


async def login(client: str, here: Site, *arguments: str) -> str:
    if client == "kcat" and shutil.which("kcat") is None:
        pytest.skip("no kcat on this machine")
    if client == "aiokafka":
        return await aiokafka_login(here, *arguments)
    return str(await asyncio.to_thread(LOGINS[client], here, *arguments))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # sockets that kafka-python leaves
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("client", LOGINS)
def test_logins(tmp_path: Path, client: str, protocol: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="strandline_broker")

    def ours() -> list[logging.LogRecord]:
        return [record for record in caplog.records if record.name.startswith("strandline_broker")]

    async def test() -> None:
        async with site(tmp_path) as here:

            def more_than(number: int) -> bool:
                return here.closed(CloseReason.AUTHENTICATION_FAILED) > number

            for mechanism in MECHANISMS:
                assert await login(client, here, protocol, mechanism, PASSWORD) == ""
            assert here.closed(CloseReason.AUTHENTICATION_FAILED) == 0
            for number, mechanism in enumerate(MECHANISMS):
                complaint = await login(client, here, protocol, mechanism, "wrong-geheim")
                theirs = "".join(record.getMessage() for record in caplog.records if record not in ours())
                assert "uthentication failed" in complaint + theirs, complaint
                await until(partial(more_than, number))

    run(test())
    lines = [record.getMessage() for record in ours()]
    assert sum("is User:alice by" in line for line in lines) >= len(MECHANISMS)
    assert not [line for line in lines if "geheim" in line]


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-512"])
def test_librdkafka_authenticates_again_in_time(
    tmp_path: Path, mechanism: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="strandline_broker.api")

    def produce(here: Site) -> int:
        lost: list[object] = []
        producer = confluent_kafka.Producer(
            librdkafka(here, "SASL_PLAINTEXT", mechanism, PASSWORD) | {"error_cb": lost.append}
        )
        acknowledged = 0

        def delivered(error: object, message: object) -> None:
            nonlocal acknowledged
            assert error is None
            acknowledged += 1

        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            producer.produce(TOPIC, b"x", on_delivery=delivered)
            producer.poll(0.02)
        assert producer.flush(10) == 0
        assert not lost
        return acknowledged

    async def test() -> None:
        async with site(tmp_path, connections_max_reauth_ms="1500") as here:
            assert await asyncio.to_thread(produce, here) > 50
            assert here.closed(CloseReason.SESSION_EXPIRED) == 0

    run(test())
    again = [record for record in caplog.records if "is User:alice by" in record.getMessage()]
    connections = {record.getMessage().split(" is ")[0] for record in again}
    assert len(again) >= len(connections) + 2


@pytest.mark.parametrize("client", ["confluent-kafka", "kcat"])
def test_clients_say_what_is_wrong(tmp_path: Path, client: str) -> None:
    async def test() -> None:
        async with site(tmp_path, sasl_enabled_mechanisms="SCRAM-SHA-512") as here:
            complaint = await login(client, here, "SASL_PLAINTEXT", "SCRAM-SHA-256", PASSWORD)
            assert "broker's supported mechanisms: SCRAM-SHA-512" in complaint

    run(test())


@pytest.mark.parametrize(
    ("listener", "protocol", "reason", "text"),
    [
        ("SASL_PLAINTEXT", "SASL_SSL", CloseReason.TLS_ON_PLAIN, "a TLS client on a listener without TLS"),
        ("SASL_SSL", "SASL_PLAINTEXT", CloseReason.PLAIN_ON_TLS, "a client without TLS on a TLS listener"),
        ("SASL_PLAINTEXT", "PLAINTEXT", CloseReason.UNAUTHENTICATED, "before authentication: check security.protocol"),
        ("SASL_SSL", "SSL", CloseReason.UNAUTHENTICATED, "before authentication: check security.protocol"),
    ],
)  # fmt: skip
def test_wrong_security_protocols_are_named(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    listener: str,
    protocol: str,
    reason: CloseReason,
    text: str,
) -> None:
    def ask(here: Site) -> None:
        config = librdkafka(here, listener, "PLAIN", PASSWORD)
        if "SASL" not in protocol:
            config = {name: value for name, value in config.items() if not name.startswith("sasl.")}
        config |= {"security.protocol": protocol, "logger": logging.getLogger("rdkafka")}
        with pytest.raises(confluent_kafka.KafkaException):
            confluent_kafka.Producer(config).list_topics(timeout=2)

    async def test() -> None:
        async with site(tmp_path) as here:
            await asyncio.to_thread(ask, here)
            await until(lambda: here.closed(reason) > 0)

    run(test())
    assert text in caplog.text


def test_certificates_as_identity(tmp_path: Path) -> None:
    def topics(here: Site, listener: str, *, certificate: str | None = None, sasl: bool = False) -> set[str]:
        config = librdkafka(here, listener, "SCRAM-SHA-256", PASSWORD)
        if not sasl:
            config = {name: value for name, value in config.items() if not name.startswith("sasl.")}
        config |= {"security.protocol": "SASL_SSL" if sasl else "SSL", "logger": logging.getLogger("rdkafka")}
        if certificate is not None:
            config |= {
                "ssl.certificate.location": str(tmp_path / f"{certificate}.crt"),
                "ssl.key.location": str(tmp_path / f"{certificate}.key"),
            }
        client = confluent_kafka.Producer(config)  # hung up when nobody holds it any more
        try:
            client.list_topics(timeout=3)
            while not (found := here.principals(listener)):  # it changes from one connection to another
                client.list_topics(timeout=3)
            return found
        except confluent_kafka.KafkaException:
            return set()

    async def test() -> None:
        async with site(tmp_path) as here:
            here.authority.issue("client", "carol", "Tide")
            (tmp_path / "other").mkdir()
            stranger = Authority(tmp_path / "other").issue("stranger", "carol", "Tide")
            for suffix in ("crt", "key"):
                Path(stranger.cert_path).with_suffix(f".{suffix}").rename(tmp_path / f"stranger.{suffix}")

            async def seen(listener: str, **options: Any) -> set[str]:
                await until(lambda: not here.principals(listener))
                return await asyncio.to_thread(lambda: topics(here, listener, **options))

            carol, nobody = {"User:CN=carol,O=Tide"}, {"User:ANONYMOUS"}
            assert await seen("SSL", certificate="client") == nobody, "nobody asked for it"
            assert await seen("MAYBE", certificate="client") == carol
            assert await seen("MAYBE") == nobody
            assert await seen("MAYBE", certificate="stranger") == set()
            assert await seen("MUST", certificate="client") == carol
            assert await seen("MUST") == set()
            assert await seen("BOTH", certificate="client", sasl=True) == {"User:alice"}
            assert await seen("BOTH", sasl=True) == set()

    run(test())
