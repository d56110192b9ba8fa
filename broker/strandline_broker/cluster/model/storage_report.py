"""StorageReport: what a broker says in its Lease of its bucket, and of what its disk means for producers.

It travels as one annotation beside those that `lease.py` has, and needs no right that a broker does not have. It is small,
and changes only when a person should learn of something: every broker of a cluster sees the Leases of all others, and a
Lease is written whole at each renewal. What changes all the time (bytes, ages) is asked for by HTTP instead.

Nothing is decided by it; the controller makes conditions of the Cluster from it (design section 7.4).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

MAX_MESSAGE: Final = 300
"""Longest text of a bucket's error that is passed on, in characters."""
BUCKET_READY: Final = "Ready"
PRODUCERS_FREE: Final = "free"
PRODUCERS_THROTTLED: Final = "throttled"
PRODUCERS_REFUSED: Final = "refused"


@dataclass(frozen=True, slots=True)
class StorageReport:
    """Times are RFC 3339, empty for never.

    `bucket` is one word: `Ready`, or why the bucket is of no use now; empty where there is none, or before it was asked.
    `message` says it to people. `conditional_writes`: whether it honours them.

    `away_since` is the last answer of the bucket, while it gives none. `unprotected_since` is when the oldest record was
    written that should be in the bucket by now, as it was when that was noticed. `stuck` counts partitions, led here, that
    are not tiered until somebody looks after them. `producers` is `free`, `throttled` or `refused`.
    """

    bucket: str = ""
    message: str = ""
    conditional_writes: bool = False
    away_since: str = ""
    unprotected_since: str = ""
    stuck: int = 0
    producers: str = PRODUCERS_FREE

    @classmethod
    def parse(cls, text: str) -> StorageReport:
        """Read an annotation. What is missing or malformed is as if it had not been said: it is for people only."""
        try:
            document = json.loads(text)
        except ValueError:
            return cls()
        if not isinstance(document, dict):
            return cls()
        stuck = document.get("stuck")
        return cls(
            bucket=_text(document, "bucket"),
            message=_text(document, "message")[:MAX_MESSAGE],
            conditional_writes=document.get("conditionalWrites") is True,
            away_since=_text(document, "awaySince"),
            unprotected_since=_text(document, "unprotectedSince"),
            stuck=stuck if type(stuck) is int and stuck > 0 else 0,
            producers=_text(document, "producers") or PRODUCERS_FREE,
        )

    def to_annotation(self) -> str:
        """Return the text of the annotation; empty where there is nothing to say."""
        if self == NOTHING_TO_REPORT:
            return ""
        document: dict[str, Any] = {
            "bucket": self.bucket,
            "message": self.message[:MAX_MESSAGE],
            "conditionalWrites": self.conditional_writes,
            "awaySince": self.away_since,
            "unprotectedSince": self.unprotected_since,
            "stuck": self.stuck,
            "producers": self.producers,
        }
        return json.dumps({key: value for key, value in document.items() if value}, sort_keys=True)


NOTHING_TO_REPORT: Final = StorageReport()


def _text(document: dict[str, Any], key: str) -> str:
    value = document.get(key)
    return value if isinstance(value, str) else ""
