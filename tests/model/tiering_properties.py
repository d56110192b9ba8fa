"""What must hold in every state of the tiering model.

- The leader of the newest epoch, once it has read, serves every acknowledged record at or above its log start with the
  right bytes, from its log or the bucket; it never finds a manifest that its log cannot follow; the log start never falls.
- Strictly, besides: what any broker has deleted is in the objects of the highest manifest, those that may be elected have
  the rest, no object that this manifest names is missing, it is never deleted, and no key is written with two contents.
"""

from __future__ import annotations

from typing import NamedTuple

from tests.model.tiering_broker import Tiering
from tests.model.tiering_replication import name_of
from tests.model.tiering_state import GONE, NO_MACHINE, Broker, Bucket, Records, Shared

from strandline_tiered.leadership import Leadership, Phase


class Judge(NamedTuple):
    """What the properties read of what is shared."""

    epoch: int
    recovering: bool
    in_sync: frozenset[int]
    bucket: Bucket
    committed: Records
    shown: int
    broken: str

    @classmethod
    def of(cls, shared: Shared) -> Judge:
        """Return what counts of a shared part."""
        control = shared.control
        return cls(
            control.epoch,
            control.recovering,
            control.in_sync,
            shared.bucket,
            shared.committed,
            shared.shown,
            shared.broken,
        )


class Properties:
    """Judges one broker with what is shared."""

    def __init__(self, tiering: Tiering, *, strict: bool) -> None:
        self._tiering = tiering
        self._strict = strict

    def broken(self, broker: Broker, judge: Judge) -> str:
        """Return what is wrong, nothing if all is well."""
        if judge.broken and (self._strict or "acknowledges" in judge.broken):
            return judge.broken
        if broker.machine != NO_MACHINE and broker.epoch == judge.epoch:
            state = self._tiering.machines[broker.machine]
            if state.phase is Phase.STUCK:
                return f"leader {broker.number} is stuck: {state.problem}"
            found = self._unserved(broker, state, judge)
            if found:
                return found
        return self._unsafe(broker, judge) if self._strict else ""

    def _unserved(self, broker: Broker, state: Leadership, judge: Judge) -> str:
        published, draft = state.published, state.draft
        if published is None or draft is None:
            return ""
        if draft.log_start < judge.shown:
            return f"the log start falls from {judge.shown} to {draft.log_start}"
        for offset in range(max(broker.log_start, published.log_start), len(judge.committed)):
            record: int | None = None
            if offset < broker.start:
                record = self._tiering.record(judge.bucket, published, offset)
            elif offset < len(broker.log):
                record = broker.log[offset]
            if record != judge.committed[offset]:
                found = "nothing" if record is None else f"a record of epoch {record}"
                return (
                    f"leader {broker.number} has {found} at offset {offset}, "
                    f"where one of epoch {judge.committed[offset]} was acknowledged"
                )
        return ""

    def _unsafe(self, broker: Broker, judge: Judge) -> str:
        truth = self._tiering.truth(judge.bucket)
        log_start = broker.log_start
        if truth is not None:
            log_start = max(log_start, truth.log_start)
            for part in truth.parts:
                if self._tiering.content(judge.bucket, part.name) is None:
                    return f"{name_of(part.name)} is gone, which the highest manifest names"
        if judge.recovering:
            return ""
        for offset in range(log_start, min(broker.start, len(judge.committed))):
            record = None if truth is None else self._tiering.record(judge.bucket, truth, offset)
            if record != judge.committed[offset]:
                return f"broker {broker.number} deleted offset {offset}, which the highest manifest lacks"
        if broker.number in judge.in_sync:
            for offset in range(max(log_start, broker.start), len(judge.committed)):
                if broker.log[offset : offset + 1] not in ((judge.committed[offset],), (GONE,)):
                    return f"broker {broker.number} may be elected without offset {offset}"
        return ""
