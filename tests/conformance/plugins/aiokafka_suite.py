"""A `docker` module that runs Strandline, for aiokafka's tests, which start Kafka in a container.

Its conftest asks Docker for two containers: one that makes certificates with the suite's own script, and the broker.
Commands that the tests run inside the broker's container (kafka-configs.sh for SCRAM users) are carried out on our users
file; others are refused. Tests that need no broker test the client alone and are left out.
"""

from __future__ import annotations

import re
import subprocess
import sys
import types
from collections.abc import Mapping, Sequence
from typing import Any

import aiokafka  # noqa: F401 - the installed one with its C extension, not the folder beside the tests
import pytest
from aiokafka.admin import NewTopic
from strandline_dev import FACTOR, Broker

_SCRAM_USER = re.compile(r"SCRAM-SHA-256=\[password=([^\]]+)\].*--entity-name (\S+)")


class _Shell:
    """A container that sleeps until it is told what to run."""

    def __init__(self, folder: str, mounts: Mapping[str, str]) -> None:
        self._folder = folder
        self._mounts = mounts

    def exec_run(self, command: Sequence[str], **_: Any) -> tuple[int, bytes]:
        words = [self._mounts.get(word, word) for word in command]
        done = subprocess.run(words, cwd=self._mounts[self._folder], capture_output=True, check=False)
        return done.returncode, done.stdout + done.stderr

    def stop(self) -> None:
        """Nothing runs."""


class _Kafka:
    """The broker's container."""

    def __init__(self, environment: Mapping[str, Any], certificates: str) -> None:
        self._users = {"admin": "admin", "test": "test", "test2": "test2"}
        self.broker = Broker(
            port=environment["ADVERTISED_PORT"],
            listeners={
                "SSL": environment["ADVERTISED_SSL_PORT"],
                "SASL_PLAINTEXT": environment["ADVERTISED_SASL_PLAINTEXT_PORT"],
                "SASL_SSL": environment["ADVERTISED_SASL_SSL_PORT"],
            },
            settings={
                "num_partitions": str(environment["NUM_PARTITIONS"]),
                "ssl_certificate_file": f"{certificates}/server.crt",
                "ssl_key_file": f"{certificates}/server.key",
                "ssl_client_ca_file": f"{certificates}/ca.crt",
                "ssl_client_auth": "required",
                "sasl_enabled_mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
            },
            users=self._users,
        )

    def exec_run(self, command: str | Sequence[str], **_: Any) -> tuple[int, bytes]:
        text = command if isinstance(command, str) else " ".join(command)
        if "kafka-configs.sh" in text and (found := _SCRAM_USER.search(text)):
            self._users[found[2]] = found[1]
            self.broker.write_users(self._users)
            return 0, b""
        if "kafka-acls.sh" in text and "--list" in text:
            return 0, b""
        return 1, f"Strandline has nothing that does this: {text}".encode()

    def stop(self) -> None:
        self.broker.stop()


class _Containers:
    def run(
        self,
        *,
        volumes: Mapping[Any, Mapping[str, str]],
        environment: Mapping[str, Any] | None = None,
        working_dir: str = "",
        **_: Any,
    ) -> _Shell | _Kafka:
        mounts = {binding["bind"]: str(path) for path, binding in volumes.items()}
        if environment is None:
            return _Shell(working_dir, mounts)
        return _Kafka(environment, mounts["/ssl_cert"])


class _Images:
    def pull(self, _image: str) -> None:
        """The broker is here already."""


class _Client:
    def __init__(self) -> None:
        self.containers = _Containers()
        self.images = _Images()

    def close(self) -> None:
        """Nothing is open."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    of_brokers = [item for item in items if "kafka_server" in getattr(item, "fixturenames", ())]
    config.hook.pytest_deselected(items=[item for item in items if item not in of_brokers])
    items[:] = of_brokers


_init_topic = NewTopic.__init__


def _init_replicated(
    self: NewTopic, name: str, num_partitions: int, replication_factor: int, **rest: Any
) -> None:
    """Ask for as many replicas as there are brokers where the suite, made for one broker, asks for one."""
    _init_topic(self, name, num_partitions, FACTOR if replication_factor == 1 else replication_factor, **rest)


NewTopic.__init__ = _init_replicated  # type: ignore[method-assign]
_docker = types.ModuleType("docker")
_docker.from_env = _Client  # type: ignore[attr-defined]
_docker.models = types.SimpleNamespace(containers=types.SimpleNamespace(Container=_Kafka))  # type: ignore[attr-defined]
sys.modules["docker"] = _docker
