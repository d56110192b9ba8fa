"""Logins of Apache Kafka's Java clients by SASL_PLAINTEXT and SASL_SSL, and their re-authentication (KIP-368)."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from benchmarks.kafka_jars import KafkaUnavailableError, java_command
from benchmarks.systems import free_port
from tests.foreign.cluster import run
from tests.unit.net.certificates import Authority

pytestmark = pytest.mark.foreign

PASSWORD = "geheim =,x"
PROTOCOLS = ("SASL_PLAINTEXT", "SASL_SSL")
MODULES = {
    "PLAIN": "plain.PlainLoginModule",
    "SCRAM-SHA-256": "scram.ScramLoginModule",
    "SCRAM-SHA-512": "scram.ScramLoginModule",
}
TOOLS = "org.apache.kafka.tools"


class Guarded:
    """`strandline dev` with SASL listeners and sessions of three seconds."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ports = {protocol: free_port() for protocol in PROTOCOLS}
        self._authority = Authority(directory)
        server = self._authority.issue("server", "localhost")
        users = directory / "users.yaml"
        strandline = [sys.executable, "-m", "strandline_operator.cli"]
        subprocess.run(
            [*strandline, "users", "add", "alice", "--file", str(users), "--password-stdin"],
            input=f"{PASSWORD}\n".encode(),
            check=True,
            timeout=30,
        )
        settings = {
            "sasl_users_file": str(users),
            "sasl_enabled_mechanisms": ",".join(MODULES),
            "ssl_certificate_file": server.cert_path,
            "ssl_key_file": server.key_path,
            "connections_max_reauth_ms": "3000",
            "log_level": "DEBUG",
        }
        command = [
            *strandline,
            "dev",
            "--plain",
            "--brokers",
            "1",
            "--port",
            "0",
            "--data-dir",
            str(directory / "data"),
        ]
        for protocol, port in self.ports.items():
            command += ["--listener", f"{protocol}://localhost:{port}"]
        for key, value in settings.items():
            command += ["--config", f"{key}={value}"]
        self._output = (directory / "output.txt").open("w+b")
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self._output)
        assert self.process.stdout is not None
        ready = any(line.startswith(b"ready ") for line in self.process.stdout)
        assert ready, (directory / "output.txt").read_text()

    def log(self) -> str:
        return (self.directory / "data" / "broker-0" / "broker.log").read_text()

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._output.close()

    def properties(self, protocol: str, mechanism: str, password: str) -> str:
        """Write a client's configuration; return its path."""
        path = self.directory / "client.properties"
        module = f"org.apache.kafka.common.security.{MODULES[mechanism]}"
        path.write_text(
            f"security.protocol={protocol}\nsasl.mechanism={mechanism}\n"
            f'sasl.jaas.config={module} required username="alice" password="{password}";\n'
            f"ssl.truststore.type=PEM\nssl.truststore.location={self._authority.ca_path}\n"
            "default.api.timeout.ms=15000\nrequest.timeout.ms=10000\n"
        )
        return str(path)

    def java(self, protocol: str, main_class: str, *arguments: str, ok: bool = True) -> str:
        try:
            command = java_command(
                main_class, ["--bootstrap-server", f"localhost:{self.ports[protocol]}", *arguments]
            )
        except KafkaUnavailableError as missing:
            pytest.skip(str(missing))
        return run(command, shown_from=command.index(main_class), ok=ok).decode()


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    made = Guarded(tmp_path_factory.mktemp("guarded"))
    try:
        yield made
    finally:
        made.stop()


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("mechanism", MODULES)
def test_right_and_wrong_passwords(guarded: Guarded, protocol: str, mechanism: str) -> None:
    topic = f"{protocol}-{mechanism}"
    config = guarded.properties(protocol, mechanism, PASSWORD)
    guarded.java(protocol, f"{TOOLS}.TopicCommand", "--command-config", config, "--create", "--topic", topic)
    listed = guarded.java(protocol, f"{TOOLS}.TopicCommand", "--command-config", config, "--list")
    assert topic in listed.split()
    config = guarded.properties(protocol, mechanism, "wrong-geheim")
    said = guarded.java(protocol, f"{TOOLS}.TopicCommand", "--command-config", config, "--list", ok=False)
    neutral = f"due to invalid credentials with SASL mechanism {mechanism}"
    assert ("Invalid username or password" if mechanism == "PLAIN" else neutral) in said
    assert "geheim" not in guarded.log()


def test_clients_authenticate_again_before_their_session_ends(guarded: Guarded) -> None:
    config = guarded.properties("SASL_SSL", "SCRAM-SHA-512", PASSWORD)
    guarded.java(
        "SASL_SSL", f"{TOOLS}.TopicCommand", "--command-config", config, "--create", "--topic", "again"
    )
    before = len(guarded.log())
    said = guarded.java(
        "SASL_SSL",
        f"{TOOLS}.ProducerPerformance",
        *("--topic", "again", "--num-records", "4000", "--record-size", "100", "--throughput", "400"),
        *("--command-config", config),
    )
    assert "4000 records sent" in said
    log = guarded.log()[before:]
    logins = re.findall(r"<Connection (\d+) .* is User:alice by SCRAM-SHA-512", log)
    assert len(logins) >= len(set(logins)) + 2, "the same connections again"
    assert "is over" not in log
