"""Lets kafka-python's integration tests start Strandline where they would start a Kafka distribution.

The suite's KafkaFixture keeps its interface; only what runs a Kafka process, writes Java key stores or calls Kafka's
shell scripts is replaced. The source distribution also leaves out two files that its own conftest imports:
`test/__init__.py` (Python would import its standard library's `test` package instead) and `test/service.py` (which runs
Java processes).
"""

from __future__ import annotations

import importlib
import os
import sys
import types
from pathlib import Path
from typing import Any

import py
from strandline_dev import FACTOR, Broker, free_port, make_certificates

_PLAINTEXT = "PLAINTEXT"


class _Child:
    """What the suite calls its Kafka process."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker

    def dump_logs(self) -> None:
        """Say what the broker said, for pytest to show when the test failed."""
        sys.stdout.write(self.broker.log())


def _open(self: Any) -> None:
    if self.tmp_dir is None:
        self.tmp_dir = py.path.local.mkdtemp()
    self.tmp_dir.ensure(dir=True)
    self.ssl_config = self._ssl_config()
    self.replicas = FACTOR
    _start(self)


def _start(self: Any) -> bool:
    if self.running:
        return True
    settings = {
        # As in the suite's kafka.properties.
        "group_min_session_timeout_ms": "1000",
        "offsets.topic.num.partitions": "2",
        "num_partitions": str(self.partitions),
        "auto_create_topics_enable": str(self.auto_create_topic).lower(),
    }
    if self.ssl_enabled:
        settings["ssl_certificate_file"] = f"{self.ssl_dir}/server.crt"
        settings["ssl_key_file"] = f"{self.ssl_dir}/server.key"
    users = {self.broker_user: self.broker_password} if self.sasl_enabled else None
    if self.sasl_enabled:
        settings["sasl_enabled_mechanisms"] = self.sasl_mechanism
    if FACTOR > 1:
        self.port = free_port()  # the suite looked for one, not for one after the other
    listeners = {} if self.transport == _PLAINTEXT else {self.transport: self.port}
    broker = Broker(listeners=listeners, settings=settings, users=users)
    if self.transport == _PLAINTEXT:
        self.port = broker.port
    self.child = _Child(broker)
    self.running = True
    return True


def _stop(self: Any) -> None:
    if self.running:
        self.child.broker.stop()
        self.running = False


def _close(self: Any) -> None:
    _stop(self)
    if self.tmp_dir is not None and self.tmp_dir.check():
        self.tmp_dir.remove()
    self.tmp_dir = None


def _get_topic_names(self: Any) -> list[str]:
    names: list[str] = self.child.broker.topic_names()
    return names


def _install() -> None:
    """Before the suite's conftest is imported; the working directory is the suite's root."""
    os.environ.setdefault("KAFKA_ROOT", str(Path.cwd()))  # only looked at
    package = types.ModuleType("test")
    package.__path__ = [str(Path.cwd() / "test")]
    sys.modules["test"] = package
    service = types.ModuleType("test.service")
    for name in ("ExternalService", "SpawnedService"):
        setattr(service, name, type(name, (), {}))
    sys.modules["test.service"] = service
    fixtures = importlib.import_module("test.integration.fixtures")
    for name in ("open", "start", "stop", "close", "get_topic_names"):
        setattr(fixtures.KafkaFixture, name, globals()[f"_{name}"])
    fixtures.gen_ssl_resources = make_certificates  # type: ignore[attr-defined]


_install()
