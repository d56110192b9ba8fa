"""Moves leaderships by Kafka's admin requests, with kafka-python, which has them all. Answers are texts for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

_TIMEOUT_MS = 5_000


def elect_preferred(bootstrap: str, topic: str) -> str:
    """Ask for the preferred leader of each partition of a topic."""

    def ask(admin: Any) -> str:
        response = admin.elect_leaders(0, [topic], timeout_ms=_TIMEOUT_MS, raise_errors=False)
        codes = [
            result.error_code
            for found in response.replica_election_results
            for result in found.partition_result
        ]
        return _count(codes)

    return _with_admin(bootstrap, ask)


def shuffle_replicas(bootstrap: str, topic: str, targets: Mapping[int, Sequence[int]]) -> str:
    """Ask for these replicas, the first of each being the preferred leader."""
    from kafka import TopicPartition  # type: ignore[import-untyped]

    def ask(admin: Any) -> str:
        wanted = {TopicPartition(topic, number): list(replicas) for number, replicas in targets.items()}
        answers = admin.alter_partition_reassignments(wanted, timeout_ms=_TIMEOUT_MS)
        return _count([0 if error is None else error.errno for error in answers.values()])

    return _with_admin(bootstrap, ask)


def _count(codes: Sequence[int]) -> str:
    from kafka.errors import for_code  # type: ignore[import-untyped]

    names = Counter("done" if code == 0 else for_code(code).__name__ for code in codes)
    return ", ".join(f"{count} {name}" for name, count in names.most_common()) or "nothing to do"


def _with_admin(bootstrap: str, ask: Any) -> str:
    # Here, because its import warns of its own use of the standard library.
    from kafka.admin import KafkaAdminClient  # type: ignore[import-untyped]
    from kafka.errors import KafkaError

    try:
        admin = KafkaAdminClient(
            bootstrap_servers=bootstrap.split(","),
            bootstrap_timeout_ms=_TIMEOUT_MS,
            request_timeout_ms=_TIMEOUT_MS,
        )
        try:
            return str(ask(admin))
        finally:
            admin.close()
    except KafkaError as error:
        return f"no answer ({type(error).__name__})"
