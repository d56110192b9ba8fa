"""Rules of tiering, broken one at a time; see `mutants.py`, which the tables of both are joined in."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from tests.simulation.mutant import Mutant, Patch, step
from tests.simulation.schedule import Schedule, Step
from tests.simulation.tiering_schedule import MAY_LOSE, tiered_topics, tiering_settings

from strandline_broker.replica import archiver
from strandline_broker.replica.archiver import Archiver
from strandline_broker.replica.tier import PartitionTier
from strandline_broker.server import tiering
from strandline_broker.server.tiering import Tiering
from strandline_tiered import protocol
from strandline_tiered.leadership import Phase
from strandline_tiered.protocol_messages import ListManifests
from strandline_tiered.protocol_rules import RULES


@dataclass(frozen=True)
class TieringMutant(Mutant):
    """A mutant that needs a bucket to be seen.

    `total` is the retention of topic `b` in both tiers. `may_lose`: there is a topic with unclean elections, too.
    """

    total: dict[str, str] = field(default_factory=dict)
    may_lose: bool = False

    @property
    def schedule(self) -> Schedule:
        """A short schedule with these faults alone."""
        return Schedule(
            0,
            tiered_topics(total=self.total) + ((MAY_LOSE,) if self.may_lose else ()),
            self.steps,
            settings=tiering_settings(max_unuploaded_age_ms=2_000, scrub_interval_ms=4_000),
            duration_s=self.steps[-1].at + 12,
            tiering=True,
        )


def _release_through(end_of: Any) -> list[Patch]:
    """Let local deletion go as far as `end_of` says of the protocol's state."""
    hear = Archiver.hear

    def mutated(self: Archiver, event: Any) -> None:
        hear(self, event)
        end = end_of(self.state)
        if end > self._tier.tiered_through:
            self._tier._bounds.raise_tiered_through(end)
            self._tier._moved()

    return [(Archiver, "hear", mutated)]


def _deletes_before_publishing() -> list[Patch]:
    return _release_through(lambda state: state.draft.end_offset if state.draft is not None else 0)


def _counts_unfinished_uploads() -> list[Patch]:
    return _release_through(lambda state: max((one.end_offset for one in state.uploads), default=0))


def _retention_counts_uploads() -> list[Patch]:
    apply_retention = Tiering._apply_retention
    count = tiering.local_only_bytes

    def mutated(self: Tiering, one: Archiver) -> None:
        # As Kafka did (KAFKA-17062): an upload that is under way is counted, and so is the segment that is uploaded.
        log = one.partition.log
        under_way = sum(
            log.segments[log.segment_of(upload.start_offset)].size for upload in one.state.uploads
        )
        tiering.local_only_bytes = lambda log, end_offset: count(log, end_offset) + under_way
        try:
            apply_retention(self, one)
        finally:
            tiering.local_only_bytes = count

    return [(Tiering, "_apply_retention", mutated)]


def _one_manifest_key() -> list[Patch]:
    return [(RULES, "next_sequence", lambda sequence, stored: 1)]


def _reuses_a_sequence() -> list[Patch]:
    return [(RULES, "next_sequence", lambda sequence, stored: stored + 1)]


def _followers_trust_manifests() -> list[Patch]:
    # What a leader tells them is the end of its manifest, and not what it may release.
    def through(self: PartitionTier) -> int:
        return max(self._bounds.tiered_through, self.remote.end_offset if self.remote is not None else 0)

    hear = Archiver.hear

    def mutated(self: Archiver, event: Any) -> None:
        hear(self, event)
        self._tier._moved()

    return [(PartitionTier, "tiered_through", property(through)), (Archiver, "hear", mutated)]


def _does_not_look() -> list[Patch]:
    return [(RULES, "shows_successor", lambda names, leader_epoch: False)]


def _does_not_claim() -> list[Patch]:
    begin = protocol.begin

    def mutated(*args: Any, **named: Any) -> Any:
        state, _ = begin(*args, **named)
        return replace(state, phase=Phase.LISTING), (ListManifests(),)

    return [(archiver, "begin", mutated)]


def _scrubs_by_age() -> list[Patch]:
    return [(RULES, "is_collectable", lambda name_epoch, leader_epoch: True)]


def _keeps_its_log() -> list[Patch]:
    return [(RULES, "must_start_again", lambda agreed_end, manifest_end: False)]


def _bucket(when: float, lasts: float, requests: str, *nodes: int, **rates: float) -> Step:
    hosts = [f"broker-{node}" for node in nodes]
    return step(when, "bucket", hosts=hosts, rates=rates, requests=requests, lasts=lasts)


def _isolate(when: float, node: int, lasts: float) -> Step:
    return step(when, "isolate", node=node, store="only", lasts=lasts)


def _deposed_unawares(leader: int, *, successor_writes: bool) -> tuple[Step, ...]:
    """Have a leader publish a manifest after its successor has read those that there are.

    It and one follower are cut off from the store, its manifests fail for so long. The successor cannot upload meanwhile.
    """
    follower, successor = (leader + 1) % 3, (leader + 2) % 3
    return (
        _bucket(7.9, 5.0, "put manifest", leader, UNAVAILABLE=1.0),
        _bucket(7.9, 16.0, "put segment" if successor_writes else "put", successor, UNAVAILABLE=1.0),
        _isolate(8.0, leader, 16.0),
        _isolate(8.0, follower, 16.0),
    )


TIERING_MUTANTS: dict[str, Mutant] = {
    "deletes-before-publishing": TieringMutant(
        "local segments go before the manifest that holds them is there",
        _deletes_before_publishing,
        (_bucket(7, 6.0, "put manifest", 0, 1, 2, UNAVAILABLE=1.0),),
    ),
    "one-manifest-key": TieringMutant(
        "all manifests of an epoch have one key", _one_manifest_key, (step(8, "elect-preferred"),)
    ),
    "reuses-a-sequence": TieringMutant(
        "after an unknown outcome the next manifest has the same sequence",
        _reuses_a_sequence,
        (_bucket(6, 14.0, "put manifest", 0, 1, 2, LATE=1.0),),
    ),
    "counts-unfinished-uploads": TieringMutant(
        "an upload that is under way counts as tiered",
        _counts_unfinished_uploads,
        (_bucket(7, 6.0, "put segment", 0, 1, 2, UNAVAILABLE=1.0),),
    ),
    "retention-counts-uploads": TieringMutant(
        "an upload that is under way counts for retention, beside the segment that is uploaded",
        _retention_counts_uploads,
        (_bucket(9, 6.0, "put segment", 0, 1, 2, UNAVAILABLE=1.0),),
        total={"retention.bytes": "3000"},
    ),
    "followers-trust-manifests": TieringMutant(
        "followers delete what a manifest holds that nobody looked behind",
        _followers_trust_manifests,
        _deposed_unawares(1, successor_writes=True),
    ),
    "does-not-look": TieringMutant(
        "a leader deletes without having looked for successors",
        _does_not_look,
        _deposed_unawares(0, successor_writes=True),
    ),
    "does-not-claim": TieringMutant(
        "a leader reads the manifests without a claim",
        _does_not_claim,
        _deposed_unawares(0, successor_writes=False),
    ),
    "keeps-its-log": TieringMutant(
        "after an unclean election, a log that lacks what the manifest holds is kept",
        _keeps_its_log,
        (step(8, "unclean", topic=MAY_LOSE.name, alone=6.0, how="kill", lasts=6.0),),
        may_lose=True,
    ),
    "scrubs-by-age": TieringMutant(
        "a scrub collects what is not published yet",
        _scrubs_by_age,
        (_bucket(8, 20.0, "", 0, 1, 2, SLOW=0.5),),
    ),
}
