"""What one broker does with the bucket: its protocol steps, and what their effects do to the world.

The protocol is the production code; this is the archiver around it, in small. A step of a broker changes its own part of
the state, and what is shared only by `Op`s, so that it can be remembered whatever else is shared.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeAlias
from uuid import UUID

from tests.model.tiering_settings import Bounds, Looking, Switches
from tests.model.tiering_state import (
    GONE,
    LEFT,
    NO_MACHINE,
    Broker,
    Bucket,
    Content,
    Numbers,
    Request,
    Shared,
    Write,
    local_log,
)

from strandline_tiered.epochs import EpochStart
from strandline_tiered.keys import ClaimName, ManifestName, Name, SegmentName
from strandline_tiered.leadership import Context, Leadership, LocalLog
from strandline_tiered.manifest import Entry, Manifest, empty_manifest
from strandline_tiered.manifest_events import Stamped, Uploaded, apply
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
    Look,
    ManifestRead,
    NotFound,
    PutClaim,
    PutManifest,
    ReadManifest,
    Release,
    ResetLocalLog,
    SegmentUploaded,
    Stored,
    Upload,
)

TOPIC_ID = UUID(int=1)
ONLY_KEY = ManifestName(0, 1)


@dataclass(frozen=True)
class Send:
    """A write is under way, and nobody waits for it."""

    write: int


@dataclass(frozen=True)
class Land:
    """A write takes effect at once."""

    write: int


@dataclass(frozen=True)
class Spend:
    """One more of what is bounded has happened (an index of `LEFT`)."""

    what: int


@dataclass(frozen=True)
class Leave:
    """A broker may not be elected any more. It is not the last one."""

    number: int


@dataclass(frozen=True)
class Show:
    """A log start was confirmed."""

    log_start: int


Op: TypeAlias = Send | Land | Spend | Leave | Show
Ops: TypeAlias = tuple[Op, ...]
After: TypeAlias = tuple[Broker, Ops]


def spend(what: str) -> Spend:
    """Return the op that counts one more of `what`."""
    return Spend(LEFT.index(what))


class Tiering:
    """The steps of brokers that touch the bucket."""

    def __init__(self, bounds: Bounds, switches: Switches) -> None:
        self.bounds = bounds
        self.switches = switches
        self.machines: Numbers[Leadership] = Numbers()
        self.writes: Numbers[Write] = Numbers()
        self.requests: Numbers[Request] = Numbers()
        self._steps: dict[tuple[int, Event, LocalLog], tuple[int, tuple[Effect, ...]]] = {}
        self._names: dict[Bucket, tuple[Name, ...]] = {}
        self._bucket: Bucket = frozenset()

    def machine(self, broker: Broker) -> Leadership | None:
        """Return a broker's leadership."""
        return None if broker.machine == NO_MACHINE else self.machines[broker.machine]

    # -- the bucket --

    def bucket_at_first(self) -> Bucket:
        """Return what is there when the world begins."""
        if not self.bounds.tiered:
            return frozenset()
        manifest = empty_manifest(TOPIC_ID, 0, 0)
        objects = []
        for offset in range(self.bounds.tiered):
            name = SegmentName(offset, 0, UUID(int=offset + 1))
            objects.append(Write(name, (0,)))
            entry = Entry(offset, offset + 1, name, 1, 1, 0, 0, 0)
            manifest = apply(manifest, Uploaded(entry, (EpochStart(0, 0),)))
        manifest = apply(manifest, Stamped(ONLY_KEY, self.bounds.tiered, 0))
        return frozenset(map(self.writes.intern, [*objects, Write(manifest.name, manifest)]))

    def names(self, bucket: Bucket) -> tuple[Name, ...]:
        """Return what a listing of everything shows."""
        found = self._names.get(bucket)
        if found is None:
            found = tuple(sorted((self.writes[one].name for one in bucket), key=str))
            self._names[bucket] = found
        return found

    def content(self, bucket: Bucket, name: Name) -> Content | None:
        """Return an object's content, None if there is none."""
        return next((self.writes[one].content for one in bucket if self.writes[one].name == name), None)

    def truth(self, bucket: Bucket) -> Manifest | None:
        """Return the highest manifest."""
        names = [name for name in self.names(bucket) if isinstance(name, ManifestName)]
        content = self.content(bucket, max(names)) if names else None
        assert content is None or isinstance(content, Manifest)
        return content

    def record(self, bucket: Bucket, manifest: Manifest, offset: int) -> int | None:
        """Return the record that the objects of a manifest have at an offset, None if they have none."""
        entry = manifest.find(offset)
        if not isinstance(entry, Entry):
            return None
        content = self.content(bucket, entry.name)
        return content[offset - entry.name.base_offset] if isinstance(content, tuple) else None

    def land(self, shared: Shared, number: int) -> Shared:
        """Let a write take effect."""
        write = self.writes[number]
        there = frozenset(one for one in shared.bucket if self.writes[one].name == write.name)
        broken = ""
        if write.content is not None:
            if there - {number}:
                broken = f"{write.name} was overwritten with other content"
            bucket = (shared.bucket - there) | {number}
        else:
            bucket = shared.bucket - there
            if there and isinstance(write.name, ManifestName):
                left = [name for name in self.names(bucket) if isinstance(name, ManifestName)]
                if not left or max(left) < write.name:
                    broken = f"the highest manifest, {write.name}, was deleted"
        return shared._replace(
            bucket=bucket, in_flight=shared.in_flight - {number}, broken=shared.broken or broken
        )

    def apply(self, shared: Shared, op: Op) -> Shared | None:
        """Return what is shared after an op; None if it may not happen any more."""
        match op:
            case Send(write):
                return shared._replace(in_flight=shared.in_flight | {write})
            case Land(write):
                return self.land(shared, write)
            case Show(log_start):
                return shared._replace(shown=max(shared.shown, log_start))
            case Leave(number):
                in_sync = shared.control.in_sync - {number}
                return shared._replace(control=shared.control._replace(in_sync=in_sync)) if in_sync else None
            case Spend(what):
                left = list(shared.control.left)
                if left[what] == 0:
                    return None
                left[what] -= 1
                return shared._replace(control=shared.control._replace(left=tuple(left)))

    # -- requests --

    def stored(self, broker: Broker, number: int) -> After:
        """Let a PUT land, and its sender hear of it."""
        request = self.requests[number]
        after, ops = self.hear(_without(broker, number), request.answer)
        return after, (Land(request.write), *ops)

    def landed(self, broker: Broker, number: int) -> After:
        """Let a PUT land, of which its sender hears later."""
        after = _without(broker, number)._replace(answers=tuple(sorted((*broker.answers, number))))
        return after, (Land(self.requests[number].write),)

    def answered(self, broker: Broker, number: int) -> After:
        """Let the answer to a PUT arrive."""
        answers = tuple(one for one in broker.answers if one != number)
        return self.hear(broker._replace(answers=answers), self.requests[number].answer)

    def lost(self, broker: Broker, number: int) -> After:
        """Let the sender of a PUT give up waiting, while the PUT goes on."""
        request = self.requests[number]
        after, ops = self.hear(_without(broker, number), Failed(request.effect))
        return after, (spend("lost_answers"), Send(request.write), *ops)

    def ended(self, broker: Broker) -> After:
        """Let a leadership end; what it sent goes on."""
        sent = tuple(Send(self.requests[number].write) for number in broker.awaited)
        ended = broker._replace(machine=NO_MACHINE, awaited=(), answers=(), asked=(), saw_successor=False)
        return ended, sent

    # -- protocol steps --

    def begin(self, broker: Broker, *, recovering: bool, may_write: bool = True) -> After:
        """Let a broker lead in its epoch."""
        state, effects = begin(TOPIC_ID, 0, broker.epoch, may_write=may_write, recovering=recovering)
        return self._carry_out(broker._replace(machine=self.machines.intern(state)), effects)

    def hear(self, broker: Broker, event: Event) -> After:
        """Let a leader hear something."""
        local = local_log(broker, self.bounds.segment_sizes[broker.number])
        key = (broker.machine, event, local)
        found = self._steps.get(key)
        if found is None:
            context = Context(local, now_ms=0, max_uploads=1, rules=self.switches.rules)
            state, effects = step(self.machines[broker.machine], event, context)
            found = self._steps[key] = self.machines.intern(state), effects
        return self._carry_out(broker._replace(machine=found[0]), found[1])

    def execute(self, broker: Broker, effect: Effect, bucket: Bucket) -> After:
        """Let a read happen, and its sender hear what it showed."""
        asked = list(broker.asked)
        asked.remove(effect)
        broker = broker._replace(asked=tuple(asked))
        self._bucket = bucket
        if isinstance(effect, Look) and self.switches.looking is Looking.BEFORE_WRITING:
            return broker._replace(saw_successor=bool(self._higher(broker, bucket))), ()
        return self.hear(broker, self._read(broker, effect, bucket))

    def _read(self, broker: Broker, effect: Effect, bucket: Bucket) -> Event:
        names = self.names(bucket)
        match effect:
            case ListManifests():
                return Listed(
                    effect, tuple(one for one in names if isinstance(one, ManifestName | ClaimName))
                )
            case Look():
                return Listed(effect, self._higher(broker, bucket))
            case ListAll():
                return Listed(effect, names)
            case ReadManifest(name):
                content = self.content(bucket, name)
                return ManifestRead(name, content) if isinstance(content, Manifest) else NotFound(effect)
            case _:
                raise AssertionError(effect)

    def _higher(self, broker: Broker, bucket: Bucket) -> tuple[Name, ...]:
        return tuple(
            name
            for name in self.names(bucket)
            if isinstance(name, ManifestName | ClaimName) and name.leader_epoch > broker.epoch
        )

    # -- effects --

    def _carry_out(self, broker: Broker, effects: tuple[Effect, ...]) -> After:
        ops: Ops = ()
        for effect in effects:
            broker, more = self._do(broker, effect)
            ops += more
        return broker, ops

    def _put(self, broker: Broker, name: Name, content: Content, effect: Effect, answer: Event) -> Broker:
        request = self.requests.intern(Request(self.writes.intern(Write(name, content)), effect, answer))
        return broker._replace(awaited=tuple(sorted((*broker.awaited, request))))

    def _do(self, broker: Broker, effect: Effect) -> After:
        match effect:
            case PutClaim(claim):
                return self._put_claim(broker, claim, effect)
            case PutManifest(manifest):
                if not self.switches.has_a_key_for_each_manifest:
                    manifest = replace(manifest, name=ONLY_KEY)
                broker = self._put(broker, manifest.name, manifest, effect, Stored(effect))
                if self.switches.looking is Looking.BEFORE_WRITING:
                    broker = _asks(broker, Look(manifest.name))
                return broker, ()
            case Upload():
                return self._upload(broker, effect), ()
            case Delete(names):
                if not self.switches.has_a_key_for_each_manifest:
                    names = tuple(name for name in names if not isinstance(name, ManifestName))
                writes = [(name, self.writes.intern(Write(name, None))) for name in names]
                ops: Ops = tuple(
                    Send(write)
                    if self.bounds.late_collection or isinstance(name, SegmentName)
                    else Land(write)
                    for name, write in writes
                )
                after, more = self.hear(broker, Deleted(effect.names))
                return after, ops + more
            case Release(tiered_through, log_start):
                may_delete = max(broker.may_delete, tiered_through)
                log_start = max(broker.log_start, log_start)
                return broker._replace(may_delete=may_delete, log_start=log_start), (Show(log_start),)
            case ResetLocalLog():
                return self._reset(broker, effect), ()
            case Look() if self.switches.looking is not Looking.AFTER_WRITING:
                seen = (ClaimName(broker.epoch + 1),) if broker.saw_successor else ()
                return self.hear(broker, Listed(effect, seen))
            case ListManifests() | Look() | ListAll() | ReadManifest():
                return _asks(broker, effect), ()
            case _:  # Report: the phase tells it as well
                return broker, ()

    def _put_claim(self, broker: Broker, claim: ClaimName, effect: PutClaim) -> After:
        resumes = not self.machines[broker.machine].may_write
        if resumes and not self.switches.claims_when_resuming:
            return self.hear(broker, Stored(effect))
        if self.switches.claims_before_reading:
            return self._put(broker, claim, (), effect, Stored(effect)), ()
        after, ops = self.hear(broker, Stored(effect))
        return after, (Send(self.writes.intern(Write(claim, ()))), *ops)

    def _upload(self, broker: Broker, effect: Upload) -> Broker:
        start, segment = effect.start_offset, effect.segment
        name = SegmentName(segment.base_offset, broker.epoch, UUID(int=broker.uploads + 1))
        size = segment.end_offset - segment.base_offset
        entry = Entry(start, segment.end_offset, name, size, size, start - segment.base_offset, 0, 0)
        records = broker.log[segment.base_offset : segment.end_offset]
        broker = broker._replace(uploads=broker.uploads + 1)
        return self._put(broker, name, records, effect, SegmentUploaded(entry))

    def _reset(self, broker: Broker, effect: ResetLocalLog) -> Broker:
        """Start again at an offset. What lies below is remembered, to tell whether it is right."""
        state = self.machines[broker.machine]
        assert state.published is not None
        records = [
            self.record(self._bucket, state.published, offset) for offset in range(effect.start_offset)
        ]
        return broker._replace(
            log=tuple(GONE if record is None else record for record in records),
            start=effect.start_offset,
            log_start=effect.log_start,
            high_watermark=effect.start_offset,
        )


def _without(broker: Broker, number: int) -> Broker:
    return broker._replace(awaited=tuple(one for one in broker.awaited if one != number))


def _asks(broker: Broker, effect: Effect) -> Broker:
    return broker._replace(asked=tuple(sorted((*broker.asked, effect), key=repr)))
