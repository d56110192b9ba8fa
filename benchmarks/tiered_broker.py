"""Strandline with a bucket: topics that are tiered, what the brokers count, and waiting until only the tail is local.

Callers: the experiments of `benchmarks.tiering`.
"""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from benchmarks import processes
from benchmarks.buckets import Bucket
from benchmarks.load import LoadError
from benchmarks.systems import HOST, Strandline

HTTP_ABOVE = 1000
_CREATE_TIMEOUT_S = 30.0
_WAIT_S = 300.0
_POLL_S = 0.1
_REST_S, _REST_SHARE = 1.0, 0.1
_CONFIG = {"log_retention_check_interval_ms": "200"}
_STAYS = {"retention.ms": "-1"}
TIERED = {**_STAYS, "remote.storage.enable": "true", "local.retention.bytes": "1"}
"""Topic settings: everything that is sealed goes to the bucket, and off the disk at once."""


class TieredBroker(Strandline):
    """`strandline dev` with a bucket of its own."""

    def __init__(
        self, directory: Path, bucket: Bucket, *, flush: str = "Replicated", brokers: int = 1
    ) -> None:
        super().__init__(directory, flush, _CONFIG, brokers=brokers, options=bucket.options())

    @property
    def all_bootstrap(self) -> str:
        """`host:port,...` of all brokers."""
        return ",".join(f"{HOST}:{self.port + broker}" for broker in range(self.brokers))

    def _answers(self) -> bool:
        """Wait for HTTP as well, which brokers begin to serve a little later."""
        if not super()._answers():
            return False
        try:
            return all(bool(self._get(broker, "/readyz")) for broker in range(self.brokers))
        except OSError:
            return False

    def create(self, topic: str, partitions: int, config: Mapping[str, str], *, replicas: int = 1) -> None:
        """Create a topic and wait until every replica is in sync and can be written. Raises LoadError."""
        admin = AdminClient({"bootstrap.servers": self.all_bootstrap, "log_level": 0})
        wanted = NewTopic(topic, partitions, replicas, config=dict(config))
        try:
            admin.create_topics([wanted])[topic].result(_CREATE_TIMEOUT_S)
        except KafkaException as refused:
            raise LoadError(f"{topic} was not created: {refused}") from refused

        def led() -> bool:
            rows = self.led(topic)
            return len(rows) == partitions and all(len(row["isr"]) == replicas for row in rows.values())

        self.wait_until(led, f"{topic} has leaders")

    def rows(self, topic: str, broker: int = 0) -> dict[int, dict[str, Any]]:
        """Return what a broker shows of its partitions of a topic."""
        answer = json.loads(self._get(broker, f"/v1/partitions?topic={topic}"))
        return {row["partition"]: row for row in answer["partitions"]}

    def led(self, topic: str) -> dict[int, dict[str, Any]]:
        """Return what their leaders show of the partitions of a topic; `broker` says who that is."""
        return {
            partition: {**row, "broker": broker}
            for broker in range(self.brokers)
            for partition, row in self.rows(topic, broker).items()
            if row["role"] == "leader"
        }

    def counter(self, name: str, labels: str = "", broker: int = 0) -> float:
        """Return a metric, summed over what `labels` leaves open; `labels` as in `kind="get"`."""
        total = 0.0
        for line in self._get(broker, "/metrics").decode().splitlines():
            full, _, value = line.rpartition(" ")
            found, _, shown = full.partition("{")
            if found == name and labels in shown:
                total += float(value)
        return total

    def requests(self, kind: str, broker: int = 0) -> float:
        """Return how many requests of a kind the bucket got: put, get, list, delete."""
        return self.counter("strandline_tier_requests_total", f'kind="{kind}"', broker)

    def log_files(self, topic: str, broker: int = 0) -> list[Path]:
        """Return the segment files of a topic on a broker's disk."""
        return sorted((self._data / f"broker-{broker}" / "data").glob(f"{topic}-*/*.log"))

    def await_tail_only(self, topic: str, partitions: int, broker: int = 0) -> None:
        """Wait until all but the open segment of each partition is in the bucket, and only there. Raises LoadError."""
        self.wait_until(
            lambda: (
                len(self.log_files(topic, broker)) == partitions
                and self.counter("strandline_tier_uploads_under_way", broker=broker) == 0
            ),
            f"{topic} is in the bucket but for its tail",
        )

    def await_manifests(self, topic: str, partitions: int) -> dict[int, int]:
        """Wait until the leader can read the bucket; return where the local log of each partition begins."""

        def loaded() -> bool:
            rows = self.rows(topic)
            return len(rows) == partitions and all(
                row.get("tier", {}).get("remoteEndOffset", -1) >= 0 for row in rows.values()
            )

        self.wait_until(loaded, f"the manifests of {topic} are loaded")
        return {partition: row["localLogStartOffset"] for partition, row in self.rows(topic).items()}

    def settle(self) -> None:
        """Wait until the brokers rest: what they do behind their start is not part of a load. Raises LoadError."""

        def at_rest() -> bool:
            before = processes.cpu_s(self.broker_pids())
            time.sleep(_REST_S)
            return processes.cpu_s(self.broker_pids()) - before < _REST_SHARE * _REST_S * self.brokers

        self.wait_until(at_rest, "the brokers rest", timeout_s=30.0)

    def wait_until(self, condition: Callable[[], bool], what: str, timeout_s: float = _WAIT_S) -> None:
        """Ask until the condition holds. Raises LoadError."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            self.check()
            if time.monotonic() > deadline:
                raise LoadError(f"not within {timeout_s} s: {what}\n{self.tail()}")
            time.sleep(_POLL_S)

    def _get(self, broker: int, path: str) -> bytes:
        url = f"http://{HOST}:{self.port + broker + HTTP_ABOVE}{path}"
        with urllib.request.urlopen(url, timeout=30) as answer:
            data: bytes = answer.read()
        return data
