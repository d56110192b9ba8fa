"""All steps of brokers that tier one partition into one bucket, and what must hold in each state.

A state is the numbers of its parts packed into one integer. Nearly all the work is remembered: steps of one broker by its
part and the little that they read of what is shared, steps of two by both parts, and what a step does to the shared part by
that part.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

from tests.model.tiering_broker import After, Leave, Ops, Tiering, spend
from tests.model.tiering_properties import Judge, Properties
from tests.model.tiering_replication import Promise, Replication, name_of
from tests.model.tiering_settings import Bounds, Looking, Switches
from tests.model.tiering_state import (
    LEFT,
    NO_MACHINE,
    Broker,
    Bucket,
    Control,
    Numbers,
    Shared,
)

from strandline_tiered.leadership import Phase
from strandline_tiered.protocol import may_append
from strandline_tiered.protocol_messages import (
    Effect,
    ListAll,
    LogChanged,
    Look,
    PutManifest,
    RaiseLogStart,
    ReadManifest,
    ScrubDue,
)

# Width of a part's number within a packed state.
BITS = 26
MASK = (1 << BITS) - 1

Step: TypeAlias = tuple[str, int]
# A step of brokers: what happens, what it adds to a packed state, and the number of its ops above `BITS`.
Move: TypeAlias = tuple[str, int, int]


class Facts(NamedTuple):
    """What follows from a shared part alone. Numbers of what it holds stand above `BITS`."""

    plain: list[Step]
    bucket: int
    control: int
    promise: int
    judge: int


class World:
    """The transition system of one configuration.

    Part 0 of a packed state is the shared one, part i + 1 broker i's. `strict`: also demand what keeps records safe, not
    only that the leader can serve each of them.
    """

    def __init__(self, bounds: Bounds, switches: Switches, *, strict: bool) -> None:
        self.bounds = bounds
        self.switches = switches
        self.tiering = Tiering(bounds, switches)
        self.replication = Replication(self.tiering)
        self.properties = Properties(self.tiering, strict=strict)
        self.shared: Numbers[Shared] = Numbers()
        self.brokers: Numbers[Broker] = Numbers()
        self._shifts = tuple(BITS * (number + 1) for number in range(len(bounds.segment_sizes)))
        self._buckets: Numbers[Bucket] = Numbers()
        self._controls: Numbers[Control] = Numbers()
        self._promises: Numbers[Promise] = Numbers()
        self._judges: Numbers[Judge] = Numbers()
        self._ops: Numbers[Ops] = Numbers()
        self._ops.intern(())  # number 0 is nothing
        # Memories. Keys that combine two numbers hold the first one above `BITS`.
        self._facts: dict[int, Facts] = {}
        self._deltas: dict[int, int | None] = {}
        self._own: dict[int, list[Move]] = {}
        self._reading: dict[int, list[Move]] = {}
        self._controlled: dict[int, list[Move]] = {}
        self._pairs: dict[tuple[int, int, int], list[Move]] = {}
        self._commits: dict[tuple[int, int], list[tuple[str, int, int, Promise]]] = {}
        self._judged: dict[int, str] = {}

    def initial(self) -> int:
        """Return the state in which a new partition, or one that is tiered in part, gets a leader."""
        numbers = range(len(self.bounds.segment_sizes))
        records = (0,) * self.bounds.records
        left = tuple(getattr(self.bounds, name) for name in LEFT)
        everybody = frozenset(numbers)
        control = Control(1 if self.bounds.tiered else 0, 0, False, everybody, left)
        shared = Shared(control, self.tiering.bucket_at_first(), frozenset(), records, 0)
        state = self.shared.intern(shared)
        for number, shift in zip(numbers, self._shifts, strict=True):
            broker = Broker(number, log=records, high_watermark=len(records))
            state |= self.brokers.intern(broker) << shift
        return state

    def unpack(self, state: int) -> tuple[Shared, list[Broker]]:
        """Return the parts of a packed state."""
        brokers = [self.brokers[(state >> shift) & MASK] for shift in self._shifts]
        return self.shared[state & MASK], brokers

    # -- steps --

    def steps(self, state: int) -> list[Step]:
        """Return every step from a state: what happened, and the packed state after it."""
        shared = state & MASK
        facts = self._facts.get(shared) or self._find_facts(shared)
        steps = [(label, state + delta) for label, delta in facts.plain]
        parts = [(state >> shift) & MASK for shift in self._shifts]
        moves: list[Move] = []
        for part in parts:
            own = self._own.get(part)
            moves += self._find_own(part) if own is None else own
            key = facts.bucket | part
            reading = self._reading.get(key)
            moves += self._find_reading(key) if reading is None else reading
            key = facts.control | part
            controlled = self._controlled.get(key)
            moves += self._find_controlled(key) if controlled is None else controlled
        bucket = facts.bucket if self.replication.reads_bucket else 0
        for one in parts:
            for other in parts:
                if one != other:
                    found = self._pairs.get((bucket, one, other))
                    moves += self._find_pairs(bucket, one, other) if found is None else found
        for label, delta, ops in moves:
            if ops == 0:
                steps.append((label, state + delta))
                continue
            key = ops | shared
            shared_delta = self._deltas.get(key, 0)
            if shared_delta == 0 and key not in self._deltas:
                shared_delta = self._find_delta(key)
            if shared_delta is not None:
                steps.append((label, state + delta + shared_delta))
        return steps + self._commit_steps(state, facts)

    def _find_facts(self, number: int) -> Facts:
        shared = self.shared[number]
        after: list[tuple[str, Shared]] = []
        for write in sorted(shared.in_flight):
            what = "DELETE" if self.tiering.writes[write].content is None else "PUT"
            name = name_of(self.tiering.writes[write].name)
            after.append((f"a late {what} of {name} lands", self.tiering.land(shared, write)))
        after += self._elections(shared)
        promise = Promise(shared.control, shared.committed, shared.broken)
        facts = Facts(
            [(label, self.shared.intern(other) - number) for label, other in after],
            self._buckets.intern(shared.bucket) << BITS,
            self._controls.intern(shared.control) << BITS,
            self._promises.intern(promise),
            self._judges.intern(Judge.of(shared)) << BITS,
        )
        self._facts[number] = facts
        return facts

    def _elections(self, shared: Shared) -> Iterator[tuple[str, Shared]]:
        control = shared.control
        if control.epoch + 1 >= self.bounds.epochs:
            return
        unclean = spend("unclean_elections")
        for number in range(len(self.bounds.segment_sizes)):
            elected = control._replace(epoch=control.epoch + 1, leader=number, former=control.in_sync)
            if number in control.in_sync:
                yield f"broker {number} is elected", shared._replace(control=elected)
                continue
            spent = self.tiering.apply(shared, unclean)
            if spent is not None:
                elected = elected._replace(
                    recovering=True,
                    in_sync=frozenset({number}),
                    left=spent.control.left,
                    unclean_epoch=elected.epoch,
                )
                # What was acknowledged before is at the mercy of this election.
                yield f"broker {number} is elected uncleanly", shared._replace(control=elected, committed=())

    def _find_delta(self, key: int) -> int | None:
        number = key & MASK
        shared: Shared | None = self.shared[number]
        for op in self._ops[key >> BITS]:
            shared = None if shared is None else self.tiering.apply(shared, op)
        delta = None if shared is None else self.shared.intern(shared) - number
        self._deltas[key] = delta
        return delta

    def _move(self, label: str, part: int, after: After) -> Move:
        broker, ops = after
        delta = (self.brokers.intern(broker) - part) << self._shifts[broker.number]
        return label, delta, (self._ops.intern(ops) << BITS if ops else 0)

    def _remembered(self, label_afters: Iterator[tuple[str, After]], part: int) -> list[Move]:
        moves = [self._move(label, part, after) for label, after in label_afters]
        return [move for move in moves if move[1] or move[2]]

    # -- what a broker does by itself --

    def _find_own(self, part: int) -> list[Move]:
        broker = self.brokers[part]
        found = self._own[part] = self._remembered(self._own_steps(broker), part)
        return found

    def _own_steps(self, broker: Broker) -> Iterator[tuple[str, After]]:
        me = broker.number
        for number in broker.awaited:
            request = self.tiering.requests[number]
            name = name_of(self.tiering.writes[request.write].name)
            looks = self.switches.looking is Looking.BEFORE_WRITING and isinstance(
                request.effect, PutManifest
            )
            if not (looks and any(isinstance(effect, Look) for effect in broker.asked)):
                yield f"broker {me} stores {name}", self.tiering.stored(broker, number)
                if self.bounds.late_answers:
                    yield f"broker {me}'s PUT of {name} lands", self.tiering.landed(broker, number)
            yield f"broker {me} hears nothing of its PUT of {name}", self.tiering.lost(broker, number)
        for number in broker.answers:
            name = name_of(self.tiering.writes[self.tiering.requests[number].write].name)
            yield f"broker {me} hears that {name} is stored", self.tiering.answered(broker, number)
        size = self.bounds.segment_sizes[me]
        end = broker.start // size * size + size
        if end <= min(broker.may_delete, len(broker.log)):
            yield f"broker {me} deletes its segments below {end}", (broker._replace(start=end), ())
        if broker.machine != NO_MACHINE:
            yield from self._leader_steps(broker)

    def _leader_steps(self, broker: Broker) -> Iterator[tuple[str, After]]:
        me, state = broker.number, self.tiering.machines[broker.machine]
        if len(broker.log) < self.bounds.log_length and may_append(state, self.switches.rules):
            longer = broker._replace(log=(*broker.log, broker.epoch))
            yield f"leader {me} appends a record", self.tiering.hear(longer, LogChanged())
        if state.phase is not Phase.READY or not state.may_write:
            return
        assert state.draft is not None
        for log_start in range(state.draft.log_start + 1, min(broker.high_watermark, len(broker.log)) + 1):
            after, ops = self.tiering.hear(broker, RaiseLogStart(log_start))
            yield f"leader {me} raises its log start to {log_start}", (after, (spend("raises"), *ops))
        if not state.is_scrubbing:
            after, ops = self.tiering.hear(broker, ScrubDue())
            yield f"leader {me} begins a scrub", (after, (spend("scrubs"), *ops))

    def _find_reading(self, key: int) -> list[Move]:
        part, bucket = key & MASK, self._buckets[key >> BITS]
        broker = self.brokers[part]
        steps = (
            (f"broker {broker.number} {_reading(effect)}", self.tiering.execute(broker, effect, bucket))
            for effect in broker.asked
        )
        found = self._reading[key] = self._remembered(steps, part)
        return found

    # -- epochs, crashes, starts --

    def _find_controlled(self, key: int) -> list[Move]:
        part, control = key & MASK, self._controls[key >> BITS]
        steps = self._control_steps(self.brokers[part], control)
        found = self._controlled[key] = self._remembered(steps, part)
        return found

    def _control_steps(self, broker: Broker, control: Control) -> Iterator[tuple[str, After]]:
        me = broker.number
        ended, sent = self.tiering.ended(broker)
        if broker.epoch < control.epoch:
            learned = ended._replace(epoch=control.epoch, uploads=0)
            if control.leader == me:
                after, ops = self.tiering.begin(learned, recovering=control.recovering)
                yield f"broker {me} begins to lead epoch {control.epoch}", (after, sent + ops)
            else:
                yield f"broker {me} follows epoch {control.epoch}", (learned, sent)
        if broker.machine != NO_MACHINE:
            yield f"broker {me} crashes and starts", (ended, (spend("crashes"), *sent))
            after, ops = self.tiering.begin(
                ended, recovering=control.recovering, may_write=not self.switches.resumes_only_to_serve
            )
            label = f"broker {me} stops cleanly and resumes epoch {broker.epoch}"
            yield label, (after, (spend("resumptions"), *sent, *ops))
        if control.in_sync - {me}:
            # Whoever was elected as what it was before does not lead.
            epoch = control.epoch if control.leader == me else broker.epoch
            ops = (spend("lost_volumes"), Leave(me), *sent)
            yield f"broker {me} loses its volume and starts", (Broker(me, epoch), ops)

    # -- replication --

    def _find_pairs(self, bucket: int, one: int, other: int) -> list[Move]:
        steps = self.replication.steps(self.brokers[one], self.brokers[other], self._buckets[bucket >> BITS])
        found = self._pairs[bucket, one, other] = self._remembered(steps, one)
        return found

    def _commit_steps(self, state: int, facts: Facts) -> list[Step]:
        """Find what leaders acknowledge, and who is in sync then: it depends on all brokers."""
        key = (state >> BITS, facts.promise)
        found = self._commits.get(key)
        if found is None:
            brokers = self.unpack(state)[1]
            found = []
            for label, broker, after, promise in self.replication.commits(
                brokers, self._promises[facts.promise]
            ):
                part = (state >> self._shifts[broker]) & MASK
                found.append((*self._move(label, part, after), promise))
            self._commits[key] = found
        steps = []
        for label, delta, ops, promise in found:
            number = state & MASK
            shared = self.shared[number]._replace(
                control=promise.control, committed=promise.committed, broken=promise.broken
            )
            for op in self._ops[ops >> BITS]:
                applied = self.tiering.apply(shared, op)
                assert applied is not None
                shared = applied
            shared_delta = self.shared.intern(shared) - number
            if delta or shared_delta:
                steps.append((label, state + delta + shared_delta))
        return steps

    # -- properties --

    def violation(self, state: int) -> str:
        """Return what is wrong in a state, nothing if all is well."""
        shared = state & MASK
        facts = self._facts.get(shared) or self._find_facts(shared)
        for shift in self._shifts:
            key = facts.judge | ((state >> shift) & MASK)
            found = self._judged.get(key)
            if found is None:
                judge = self._judges[key >> BITS]
                found = self._judged[key] = self.properties.broken(self.brokers[key & MASK], judge)
            if found:
                return found
        return ""

    # -- for people --

    def changes(self, before: int, after: int) -> list[str]:
        """Return a line for each broker, and for the highest manifest, that a step changed."""
        (old_shared, old), (new_shared, new) = self.unpack(before), self.unpack(after)
        lines = [self._describe(broker) for former, broker in zip(old, new, strict=True) if broker != former]
        truth = self.tiering.truth(new_shared.bucket)
        if truth is not None and truth != self.tiering.truth(old_shared.bucket):
            entries = " ".join(f"[{part.start_offset}, {part.end_offset})" for part in truth.parts)
            log_start = f", log start {truth.log_start}" if truth.log_start else ""
            lines.append(f"the highest manifest is {name_of(truth.name)}: {entries or 'nothing'}{log_start}")
        return lines

    def _describe(self, broker: Broker) -> str:
        log = " ".join(str(epoch) for epoch in broker.log[broker.start :])
        text = f"broker {broker.number}: epoch {broker.epoch}, log from {broker.start} [{log}]"
        if broker.machine == NO_MACHINE:
            return text
        state = self.tiering.machines[broker.machine]
        released = "" if state.tiered_through is None else f", released to {state.tiered_through}"
        return f"{text}, leads, {state.phase.value}{released}"


def _reading(effect: Effect) -> str:
    match effect:
        case ReadManifest(name):
            return f"reads {name_of(name)}"
        case Look():
            return "looks for successors"
        case ListAll():
            return "lists everything"
        case _:
            return "lists manifests"
