"""The example program, and proof that it would notice a difference."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from examples.real_data import Client, Confluent, DifferenceError, Record, Run, find_source
from tests.foreign.cluster import Cluster, run
from tests.foreign.conftest import REPOSITORY

pytestmark = pytest.mark.foreign


def test_the_example_program(cluster: Cluster) -> None:
    script = REPOSITORY / "examples" / "real_data.py"
    said = run([sys.executable, str(script), "--bootstrap", cluster.bootstrap, "--limit", "5000"])
    assert b"every byte came back" in said


class Lying(Client):
    """Reads through another client and changes one thing."""

    name = "lying"

    def __init__(self, bootstrap: str, lie: str) -> None:
        super().__init__(bootstrap)
        self._lie = lie

    def produce(self, topic: str, partitions: int, records: Iterator[Record]) -> None:
        raise AssertionError("not called here")

    def consume(self, topic: str, partition: int) -> Iterator[tuple[int, Record]]:
        for offset, record in Confluent(self.bootstrap).consume(topic, partition):
            if offset != 5 or partition != 1:
                yield offset, record
            elif self._lie == "value":
                yield offset, record._replace(value=record.value[:-1] + b"?")
            elif self._lie == "header":
                yield offset, record._replace(headers=record.headers[1:])
            elif self._lie == "timestamp":
                yield offset, record._replace(timestamp_ms=record.timestamp_ms + 1)
            elif self._lie == "twice":
                yield offset, record
                yield offset, record


@pytest.mark.parametrize("lie", ["value", "header", "timestamp", "twice", "missing"])
def test_a_difference_is_noticed(cluster: Cluster, lie: str) -> None:
    source = find_source(None)
    if source is None:
        pytest.skip("no package index on this machine")
    program = Run(cluster.bootstrap, source, partitions=3, replicas=1, limit=100)
    topic = cluster.new_topic(partitions=3)
    program.send(Confluent(cluster.bootstrap), topic)
    program.compare(Confluent(cluster.bootstrap), topic)
    with pytest.raises(DifferenceError):
        program.compare(Lying(cluster.bootstrap, lie), topic)
