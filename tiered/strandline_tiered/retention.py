"""What retention gives up, in the bucket and locally: decisions without effects (design 7.2 to 7.4).

Who uses it: the archiver of a leader (`remote_retention`; the result goes through the protocol), and every replica for its
own disk (`local_retention`). Pure.

Arithmetic counts what a manifest holds, and local bytes behind its end: an upload that is under way, failed, or was never
published counts nowhere (KAFKA-17062). Oldest first, and nothing behind the first part that stays. Timestamps come from
clients: one that lies in the future, or is missing, delays deletion.

Source: Kafka `RemoteLogManager.RLMExpirationTask`, `UnifiedLog.deletableSegments`, KIP-405.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from strandline_tiered.manifest import NO_TIMESTAMP, Manifest, PageRef, Part

UNLIMITED = -1
AS_TOTAL = -2
"""A local limit that is the total one (`local.retention.ms`, `local.retention.bytes`)."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Retention of a topic, in milliseconds and bytes. -1 is no limit, -2 (local only) the same as the total one."""

    retention_ms: int = UNLIMITED
    retention_bytes: int = UNLIMITED
    local_retention_ms: int = AS_TOTAL
    local_retention_bytes: int = AS_TOTAL

    @property
    def local_ms(self) -> int:
        """How long tiered segments stay local."""
        return self.retention_ms if self.local_retention_ms == AS_TOTAL else self.local_retention_ms

    @property
    def local_bytes(self) -> int:
        """How many bytes stay local, of what is tiered."""
        return self.retention_bytes if self.local_retention_bytes == AS_TOTAL else self.local_retention_bytes


class RemotePlan(NamedTuple):
    """A log start to be asked for, and the first page, where its entries have to be known to go further."""

    log_start: int
    needs_page: PageRef | None = None


def remote_retention(manifest: Manifest, local_only_bytes: int, now_ms: int, policy: Policy) -> RemotePlan:
    """Decide what of a manifest is obsolete.

    `local_only_bytes`: the local log at or above the manifest's end, which counts toward the limit and never goes here.
    """
    log_start = manifest.log_start
    parts = [part for part in manifest.parts if part.end_offset > log_start]
    excess = 0
    if policy.retention_bytes >= 0:
        excess = sum(part.size for part in parts) + local_only_bytes - policy.retention_bytes
    for part in parts:
        too_much = policy.retention_bytes >= 0 and excess >= part.size
        if not too_much and not _is_old(part, now_ms, policy.retention_ms):
            is_first = part is manifest.parts[0]
            if isinstance(part, PageRef) and is_first and (excess > 0 or policy.retention_ms >= 0):
                return RemotePlan(log_start, part)
            break
        excess -= part.size
        log_start = part.end_offset
    return RemotePlan(log_start)


def _is_old(part: Part, now_ms: int, retention_ms: int) -> bool:
    if retention_ms < 0 or part.max_timestamp == NO_TIMESTAMP:
        return False
    return now_ms - part.max_timestamp > retention_ms


class LocalSegment(NamedTuple):
    """A sealed segment of a local log. `age_timestamp`: its largest timestamp, or when it was made (ms)."""

    end_offset: int
    size: int
    age_timestamp: int


def local_retention(
    sealed: Iterable[LocalSegment],
    local_bytes: int,
    tiered_through: int,
    log_start: int,
    now_ms: int,
    policy: Policy,
    *,
    is_full: bool = False,
) -> int:
    """Return the offset below which local segments go, 0 if none do.

    `sealed`: oldest first. `local_bytes`: of the whole local log. `tiered_through`, `log_start`: as the leader released
    them; nothing else is ever deleted. `is_full`: the disk is, so that everything that is tiered goes.
    """
    below = 0
    excess = local_bytes - policy.local_bytes
    for segment in sealed:
        obsolete = segment.end_offset <= log_start
        if segment.end_offset <= tiered_through:
            too_much = policy.local_bytes >= 0 and excess >= segment.size
            too_old = policy.local_ms >= 0 and now_ms - segment.age_timestamp > policy.local_ms
            obsolete = obsolete or too_much or too_old or is_full
        if not obsolete:
            break
        excess -= segment.size
        below = segment.end_offset
    return below
