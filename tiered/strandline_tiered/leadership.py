"""What a leader's side of tiering knows, and what it sees of its local log.

Who uses it: `protocol`, which takes the steps; the archiver of a broker; the model checker. Values only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import TypeAlias
from uuid import UUID

from strandline_tiered.epochs import History
from strandline_tiered.keys import ManifestName, Name
from strandline_tiered.manifest import PAGE_ENTRIES, TAIL_ENTRIES, Entry, Manifest
from strandline_tiered.protocol_messages import Effect, Report, SealedSegment
from strandline_tiered.protocol_rules import RULES, Rules

MAX_CONDEMNED = 8000
"""Names that wait to be deleted beyond that are forgotten, and left to the scrub of a later epoch."""


class Phase(Enum):
    """How far a leadership is.

    CLAIMING --claim stored--> LISTING --nothing is there--------------+
                               |     ^                                 |
                     the highest     gone: list again                  |
                               v     |                                 v
                               LOADING --loaded, and it can be true--> READY

    any but STUCK --a claim or manifest of a higher epoch--> SUPERSEDED
    LOADING --damaged, or it contradicts the local log--> STUCK
    """

    CLAIMING = "claiming"
    LISTING = "listing"
    LOADING = "loading"
    READY = "ready"
    SUPERSEDED = "superseded"
    STUCK = "stuck"


@dataclass(frozen=True, slots=True)
class LocalLog:
    """What a leader's log is like when a step is taken.

    `log_start`: first offset for readers, as far as it knows. `start_offset`: first offset that is on its disk.
    `sealed`: sealed segments in order; those that end at or below the manifest's end may be left out.
    """

    log_start: int
    start_offset: int
    end_offset: int
    high_watermark: int
    last_stable_offset: int
    epochs: History = ()
    sealed: tuple[SealedSegment, ...] = ()


@dataclass(frozen=True, slots=True)
class PendingUpload:
    """Records [start_offset, end_offset) that are being uploaded; `entry` once they are, and others before them are not."""

    start_offset: int
    end_offset: int
    entry: Entry | None = None


@dataclass(frozen=True, slots=True)
class Garbage:
    """A name that manifests from sequence `since` on do not hold. It may be deleted once such a one is confirmed."""

    name: Name
    since: int


@dataclass(frozen=True, slots=True)
class Leadership:
    """The tiering of one partition under one leader epoch.

    `may_write`: False for a leader that resumed its epoch after a clean stop (design 3.3): it claims and serves, no more.
    `recovering`: the election was unclean, or may have lost bytes, and nobody has recovered since.
    `draft`: what the next manifest will hold; `is_dirty`: it differs from the last one written. `published`: the manifest
    known to be in the bucket, which readers use: at first the one that was loaded. `confirmed`: one of its own, behind
    which a listing showed no successor. `sequence`: the highest one used. `problem`: why it is stuck.
    """

    topic_id: UUID
    partition: int
    leader_epoch: int
    may_write: bool
    recovering: bool
    phase: Phase
    draft: Manifest | None = None
    is_dirty: bool = False
    published: Manifest | None = None
    confirmed: Manifest | None = None
    sequence: int = 0
    loading: ManifestName | None = None
    writing: Manifest | None = None
    looking: Manifest | None = None
    uploads: tuple[PendingUpload, ...] = ()
    is_spilling: bool = False
    is_unspilling: bool = False
    is_scrubbing: bool = False
    garbage: tuple[Garbage, ...] = ()
    condemned: tuple[Name, ...] = ()
    deleting: tuple[Name, ...] = ()
    problem: str = ""

    @property
    def tiered_through(self) -> int | None:
        """Below it, leader and followers may delete locally; new replicas start there. None as long as nobody may."""
        return self.confirmed.end_offset if self.confirmed is not None else None

    @property
    def confirmed_log_start(self) -> int | None:
        """The log start that every successor will know: what followers are told, and DeleteRecords waits for."""
        return self.confirmed.log_start if self.confirmed is not None else None


@dataclass(frozen=True, slots=True)
class Context:
    """What a step may know besides the state: the local log, the wall clock (ms), which decides nothing, and limits.

    `max_uploads`: how many segments are under way, or wait for others before them. `tail_entries`, `page_entries`: see
    `spillable`.
    """

    local: LocalLog
    now_ms: int
    max_uploads: int = 2
    tail_entries: int = TAIL_ENTRIES
    page_entries: int = PAGE_ENTRIES
    rules: Rules = RULES


Step: TypeAlias = tuple[Leadership, tuple[Effect, ...]]


def with_garbage(state: Leadership, names: Sequence[Name], rules: Rules) -> Leadership:
    """Remember names that the draft does not hold any more, or never will."""
    if not names:
        return state
    since = rules.forgotten_from(state.sequence)
    garbage = (*state.garbage, *(Garbage(name, since) for name in names))
    return replace(state, garbage=garbage[:MAX_CONDEMNED])


def superseded(state: Leadership) -> Step:
    """Stop: a successor was seen."""
    return replace(state, phase=Phase.SUPERSEDED), ()


def stuck(state: Leadership, problem: str) -> Step:
    """Stop: something cannot be true."""
    return replace(state, phase=Phase.STUCK, problem=problem), (Report(problem),)
