"""Where a user wants the replicas of new partitions: an annotation of the Topic. Pure.

    strandline.io/replica-assignment: '{"0":[1,2],"1":[2,0]}'

Kafka's manual assignment. It counts when a partition is made, and never after: later moves are reassignments. Partitions
that it does not name go where the controller puts them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

ANNOTATION_REPLICA_ASSIGNMENT = "strandline.io/replica-assignment"
# Kubernetes takes 256 KiB of annotations for an object.
MAX_TEXT = 200_000


def format_assignment(assignment: Mapping[int, Sequence[int]]) -> str:
    """Return the text of the annotation."""
    wanted = {str(number): list(replicas) for number, replicas in sorted(assignment.items())}
    return json.dumps(wanted, separators=(",", ":"))


def parse_assignment(text: str) -> dict[int, tuple[int, ...]]:
    """Return the replicas of each partition that the annotation names. Raises ValueError, whose text is for the user."""
    try:
        found = {int(number): tuple(map(_broker, replicas)) for number, replicas in json.loads(text).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            f"the annotation {ANNOTATION_REPLICA_ASSIGNMENT} is not like "
            f'{{"0":[1,2],"1":[2,0]}} (partition: brokers): {error}'
        ) from error
    for number, replicas in found.items():
        if not replicas or len(set(replicas)) != len(replicas):
            raise ValueError(
                f"the annotation {ANNOTATION_REPLICA_ASSIGNMENT} must name different brokers for partition {number}"
            )
    return found


def _broker(broker_id: object) -> int:
    if not isinstance(broker_id, int) or broker_id < 0:
        raise ValueError(f"{broker_id!r} is no broker id")
    return broker_id
