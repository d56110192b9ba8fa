"""ISR changes whose outcome this broker does not know, on its disk: `isr-attempts.json`.

Before a leader asks the store to take somebody into the ISR, the attempt is here (design section 3.4): a leader that stops
cleanly and resumes its epoch from cached state must go on counting a member that the store may have taken in meanwhile.
Attempts only to shrink need no record, since the confirmed ISR on disk holds everybody they name.

Format: one JSON object {"version": 1, "attempts": [{"topicId", "partition", "state"}]}, replaced atomically. Pure;
`IsrKeeper` writes the file, `ReplicaManager` asks for what a resumed epoch has to count.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING
from uuid import UUID

import orjson

from strandline_broker.cluster.model import MALFORMED, PartitionState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

logger = logging.getLogger(__name__)

ATTEMPTS_FILE = "isr-attempts.json"
VERSION = 1

PartitionKey = tuple[UUID, int]


def encode_attempts(attempts: Iterable[tuple[PartitionKey, PartitionState]]) -> bytes:
    """Return the content of the file."""
    entries = [
        {"topicId": str(topic_id), "partition": index, "state": state.to_object()}
        for (topic_id, index), state in attempts
    ]
    return orjson.dumps({"version": VERSION, "attempts": entries})


def decode_attempts(data: bytes) -> Mapping[PartitionKey, list[PartitionState]]:
    """Return the attempts by partition. Raises ValueError when the file cannot be read."""
    found: dict[PartitionKey, list[PartitionState]] = {}
    try:
        saved = orjson.loads(data)
        if saved["version"] != VERSION:
            raise ValueError(f"{ATTEMPTS_FILE} has version {saved['version']}, this broker knows {VERSION}")
        for entry in saved["attempts"]:
            key = (UUID(entry["topicId"]), int(entry["partition"]))
            found.setdefault(key, []).append(PartitionState.from_object(entry["state"]))
    except MALFORMED as error:
        raise ValueError(f"{ATTEMPTS_FILE} cannot be read: {error!r}") from error
    return found
