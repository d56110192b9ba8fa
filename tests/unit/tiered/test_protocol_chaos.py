"""Leaders, deposed ones among them, over one bucket that loses answers and lets writes land late: random, and long.

The model checker sees every schedule of two records; this sees some of many records, with pages and several uploads at
once.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from typing import TypeAlias
from uuid import UUID

import pytest
from tests.unit.tiered.manifest_support import TOPIC_ID

from strandline_tiered.epochs import EpochStart
from strandline_tiered.keys import ClaimName, ManifestName, Name, SegmentName
from strandline_tiered.leadership import Context, Leadership, LocalLog, Phase
from strandline_tiered.manifest import Entry, Manifest, PageRef
from strandline_tiered.manifest_format import (
    decode_manifest,
    encode_manifest,
    load_page,
    make_page,
)
from strandline_tiered.protocol import begin, step
from strandline_tiered.protocol_messages import (
    Delete,
    Deleted,
    Effect,
    Event,
    Failed,
    ListAll,
    Listed,
    ListManifests,
    LogChanged,
    Look,
    ManifestRead,
    NotFound,
    PageNeeded,
    PageRead,
    PageStored,
    PutClaim,
    PutManifest,
    PutPage,
    RaiseLogStart,
    ReadManifest,
    ReadPage,
    Release,
    ScrubDue,
    SealedSegment,
    SegmentUploaded,
    Stored,
    Upload,
)
from strandline_tiered.protocol_rules import RULES, Rules

# Objects to be, and names to be gone.
Change: TypeAlias = tuple[Name, object | None]


@dataclass
class Broker:
    """A replica with everything from `start` on; `segment` is the size of its segments, in records."""

    segment: int
    start: int = 0
    log_start: int = 0
    may_delete: int = 0


@dataclass
class Tenure:
    """One leadership, at work or deposed."""

    state: Leadership
    broker: Broker
    asked: list[Effect] = field(default_factory=list)


class Chaos:
    """See the module. Every broker has every record; `end` is the high watermark."""

    def __init__(self, seed: int, rules: Rules = RULES) -> None:
        self.rules = rules
        self.random = random.Random(seed)
        self.brokers = [Broker(3), Broker(5)]
        self.bucket: dict[Name, object] = {}
        self.late: list[Change] = []
        self.end = 0
        self.epoch = 0
        self.history: list[EpochStart] = []
        self.names = 0
        self.tenures: list[Tenure] = []
        self.elect()

    def elect(self) -> None:
        self.epoch += 1
        broker = self.random.choice(self.brokers)
        broker.may_delete = 0
        self.history.append(EpochStart(self.epoch, self.end))
        self.tenures = [one for one in self.tenures if one.broker is not broker][-2:]
        state, effects = begin(TOPIC_ID, 3, self.epoch)
        self.tenures.append(Tenure(state, broker, list(effects)))

    def context(self, broker: Broker) -> Context:
        size = broker.segment
        ends = range(size, self.end + 1, size)
        sealed = tuple(
            SealedSegment(max(end - size, broker.start), end) for end in ends if end > broker.start
        )
        epochs: list[EpochStart] = []
        for entry in self.history:
            while epochs and epochs[-1].start_offset == entry.start_offset:
                epochs.pop()
            epochs.append(entry)
        log = LocalLog(broker.log_start, broker.start, self.end, self.end, self.end, tuple(epochs), sealed)
        return Context(log, 0, max_uploads=3, tail_entries=5, page_entries=3, rules=self.rules)

    def hear(self, tenure: Tenure, event: Event) -> None:
        tenure.state, effects = step(tenure.state, event, self.context(tenure.broker))
        for effect in effects:
            if isinstance(effect, Release):
                tenure.broker.may_delete = max(tenure.broker.may_delete, effect.tiered_through)
                tenure.broker.log_start = max(tenure.broker.log_start, effect.log_start)
            else:
                tenure.asked.append(effect)

    def change(self, change: Change) -> None:
        name, content = change
        if content is None:
            if name in self.bucket and isinstance(name, ManifestName):
                assert name != max(one for one in self.bucket if isinstance(one, ManifestName))
            self.bucket.pop(name, None)
        else:
            assert self.bucket.get(name, content) == content, f"{name} is written with other content"
            self.bucket[name] = content

    def carry_out(self, tenure: Tenure, effect: Effect) -> None:
        """Carry out what is asked for: at once, or later while the sender hears of a failure, or twice, or never."""
        changes, answer = self.plan(tenure, effect)
        fate = self.random.random()
        if fate < 0.1:
            self.late += [change for change in changes if self.random.random() < 0.7]
            self.hear(tenure, Failed(effect))
            return
        for change in changes:
            self.change(change)
        if fate < 0.2:
            self.late += changes
        self.hear(tenure, Failed(effect) if fate < 0.15 else answer)

    def plan(self, tenure: Tenure, effect: Effect) -> tuple[list[Change], Event]:
        epoch = tenure.state.leader_epoch
        match effect:
            case PutClaim(claim):
                return [(claim, b"")], Stored(effect)
            case PutManifest(manifest):
                return [(manifest.name, encode_manifest(manifest))], Stored(effect)
            case Upload(start, segment):
                self.names += 1
                name = SegmentName(segment.base_offset, epoch, UUID(int=self.names))
                size = segment.end_offset - segment.base_offset
                entry = Entry(start, segment.end_offset, name, size, size, start - segment.base_offset, 0, 0)
                return [(name, segment)], SegmentUploaded(entry)
            case PutPage(entries):
                self.names += 1
                page, data = make_page(entries, epoch, UUID(int=self.names))
                return [(page.name, data)], PageStored(page)
            case Delete(names):
                return [(gone, None) for gone in names], Deleted(names)
            case ListManifests():
                return [], Listed(effect, self.listed(-1))
            case Look():
                return [], Listed(effect, self.listed(epoch))
            case ListAll():
                return [], Listed(effect, tuple(self.bucket))
            case ReadManifest(wanted):
                content = self.bucket.get(wanted)
                if not isinstance(content, bytes):
                    return [], NotFound(effect)
                return [], ManifestRead(wanted, decode_manifest(content))
            case ReadPage(page):
                content = self.bucket.get(page.name)
                if not isinstance(content, bytes):
                    return [], NotFound(effect)
                return [], PageRead(page, load_page(page, content))
            case _:
                raise AssertionError(effect)

    def listed(self, above: int) -> tuple[Name, ...]:
        return tuple(
            name
            for name in self.bucket
            if isinstance(name, ManifestName | ClaimName) and name.leader_epoch > above
        )

    def act(self) -> None:
        tenure = self.random.choice(self.tenures)
        what = self.random.random()
        if what < 0.02:
            self.elect()
        elif what < 0.2:
            self.end += self.random.randint(1, 4)
            self.hear(tenure, LogChanged())
        elif what < 0.25:
            self.hear(tenure, RaiseLogStart(self.random.randint(0, self.end)))
        elif what < 0.27:
            self.hear(tenure, ScrubDue())
        elif what < 0.29:
            self.hear(tenure, PageNeeded())
        elif what < 0.35:
            self.delete_locally(self.random.choice(self.brokers))
        elif what < 0.4 and self.late:
            self.change(self.late.pop(self.random.randrange(len(self.late))))
        elif tenure.asked:
            self.carry_out(tenure, tenure.asked.pop(self.random.randrange(len(tenure.asked))))

    def delete_locally(self, broker: Broker) -> None:
        current = self.tenures[-1]
        through = current.state.tiered_through
        if through is not None and broker is not current.broker:
            # Whoever follows leads no more.
            self.tenures = [one for one in self.tenures if one.broker is not broker]
            broker.may_delete = max(broker.may_delete, through)
            broker.log_start = max(broker.log_start, current.state.confirmed_log_start or 0)
        broker.start = max(broker.start, min(broker.may_delete, self.end) // broker.segment * broker.segment)

    def check(self) -> Manifest | None:
        """Whatever any broker has deleted is in the highest manifest, and what that names is there."""
        assert all(tenure.state.phase is not Phase.STUCK for tenure in self.tenures), [
            tenure.state.problem for tenure in self.tenures
        ]
        names = [name for name in self.bucket if isinstance(name, ManifestName)]
        if not names:
            assert all(broker.start == 0 for broker in self.brokers)
            return None
        content = self.bucket[max(names)]
        assert isinstance(content, bytes)
        truth = decode_manifest(content)
        covered: set[int] = set()
        for part in truth.parts:
            assert part.name in self.bucket, f"{part.name} is gone"
            entries: tuple[Entry, ...] = (part,) if isinstance(part, Entry) else ()
            if isinstance(part, PageRef):
                data = self.bucket[part.name]
                assert isinstance(data, bytes)
                entries = load_page(part, data)
            for entry in entries:
                segment = self.bucket[entry.name]
                assert isinstance(segment, SealedSegment)
                assert segment.base_offset <= entry.start_offset < entry.end_offset <= segment.end_offset
                covered |= set(range(entry.start_offset, entry.end_offset))
        for broker in self.brokers:
            lost = set(range(max(truth.log_start, broker.log_start), broker.start)) - covered
            assert not lost, f"{sorted(lost)} are neither local nor in {truth.name}"
        return truth


def run(seed: int, rules: Rules = RULES) -> None:
    chaos = Chaos(seed, rules)
    for _ in range(600):
        chaos.act()
        chaos.check()


def run_all(seeds: range, rules: Rules) -> None:
    for seed in seeds:
        run(seed, rules)


@pytest.mark.parametrize("seed", range(20))
def test_nothing_that_was_deleted_is_needed(seed: int) -> None:
    run(seed)


@pytest.mark.parametrize(
    "rules",
    [
        replace(RULES, shows_successor=lambda names, leader_epoch: False),
        replace(RULES, is_collectable=lambda name_epoch, leader_epoch: True),
        replace(RULES, forgotten_from=lambda sequence: 0),
        replace(RULES, next_sequence=lambda sequence, stored: stored + 1),
    ],
    ids=["looks", "scrubs", "deletes", "sequences"],
)
def test_a_broken_rule_is_noticed(rules: Rules) -> None:
    with pytest.raises(AssertionError):
        run_all(range(40), rules)


def test_the_schedules_reach_what_they_are_for() -> None:
    pages = scrubs = superseded = deleted = 0
    for seed in range(10):
        chaos = Chaos(seed)
        for _ in range(600):
            chaos.act()
            scrubs += any(tenure.state.is_scrubbing for tenure in chaos.tenures)
            superseded += any(tenure.state.phase is Phase.SUPERSEDED for tenure in chaos.tenures)
        truth = chaos.check()
        assert truth is not None
        pages += any(isinstance(part, PageRef) for part in truth.parts)
        deleted += max(broker.start for broker in chaos.brokers)
    assert min(pages, scrubs, superseded, deleted) > 0, (pages, scrubs, superseded, deleted)
