"""Which topic names Kafka allows, and which it keeps for itself. Pure.

Source: Apache Kafka 4.2, `org.apache.kafka.common.internals.Topic`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from strandline_broker.cluster.internal_topics import INTERNAL_TOPICS
from strandline_broker.errors import ErrorCode, KafkaError

MAX_NAME_LENGTH = 249
_LEGAL = re.compile(r"[a-zA-Z0-9._-]+", re.ASCII)


def is_internal(name: str) -> bool:
    """Say whether the cluster makes this topic for itself."""
    return name in INTERNAL_TOPICS


def is_valid(name: str) -> bool:
    """Say whether Kafka allows a topic of this name."""
    return name not in (".", "..") and len(name) <= MAX_NAME_LENGTH and _LEGAL.fullmatch(name) is not None


def check(name: str) -> None:
    """Refuse a name that Kafka does not allow. Raises KafkaError(INVALID_TOPIC_EXCEPTION)."""
    if not name:
        why = "the empty string is not allowed"
    elif name in (".", ".."):
        why = "'.' or '..' is not allowed"
    elif len(name) > MAX_NAME_LENGTH:
        why = f"the length of '{name}' is longer than the max allowed length {MAX_NAME_LENGTH}"
    elif _LEGAL.fullmatch(name) is None:
        why = f"'{name}' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'"
    else:
        return
    raise KafkaError(ErrorCode.INVALID_TOPIC_EXCEPTION, f"Topic name is invalid: {why}")


def check_collision(name: str, existing: Iterable[str]) -> None:
    """Refuse a name that differs from an existing one only in '.' against '_'.

    Kafka's metrics could not tell the two apart. Raises KafkaError(INVALID_TOPIC_EXCEPTION).
    """
    if "." not in name and "_" not in name:
        return
    unified = name.replace(".", "_")
    for other in existing:
        if len(other) == len(name) and other != name and other.replace(".", "_") == unified:
            raise KafkaError(
                ErrorCode.INVALID_TOPIC_EXCEPTION, f"Topic '{name}' collides with existing topic: {other}"
            )
