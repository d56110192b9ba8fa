"""All steps of the whole world: from one packed state to the next ones, and what must hold in each.

Nearly all the work is remembered: steps of one broker by its part of the state, steps between two brokers by both
parts, steps that read what is shared by the little that they read, and what a step does to the shared part by that part.
What remains for each state is adding integers.

No reduction by symmetry: brokers differ by their place in `replicas`, which decides elections.
"""

from __future__ import annotations

from typing import NamedTuple

from tests.model.broker import BrokerMoves, incarnation_name
from tests.model.settings import Bounds, Switches
from tests.model.shared import Decision, Leases, SharedMoves
from tests.model.starts import Starts
from tests.model.state import BITS, MASK, NO_EPOCH, NO_VIEW, Broker, Fetch, Log, Shared, Table

from strandline_broker.cluster.model import NO_LEADER, BrokerIdentity, PartitionState
from strandline_broker.cluster.transitions import new_partition

# A step to be: what happens, and what it adds to a packed state.
Plain = tuple[str, int]
# The same, and the number of what else it does to the shared part, above `BITS`.
Move = tuple[str, int, int]


class Readable(NamedTuple):
    """What steps of brokers read of the shared part."""

    partition: int
    current: int
    refused: int
    former: tuple[int, ...]
    leases: Leases
    late_fetch: Fetch | None


class Promise(NamedTuple):
    """What replicas owe: the records acknowledged, and by the stored partition state, who owes them.

    `void`: a possible loss was announced, so that old high watermarks no longer say anything.
    """

    partition: int
    acknowledged: Log
    void: bool


class Acknowledge(NamedTuple):
    """Effect: the high watermark of the leader in `epoch` passed these records."""

    passed: Log
    epoch: int


class Send(NamedTuple):
    """Effect: a leader sent an ISR change."""

    number: int
    target: int


class Begin(NamedTuple):
    """Effect: a broker ended and started."""

    number: int
    generation: int
    leads: bool
    clean: bool
    fetch: Fetch | None


class Learn(NamedTuple):
    """Effect: a broker learned what the store holds, or held."""

    number: int
    epoch: int
    writes: bool
    newest: bool


class Fail(NamedTuple):
    """Effect: a log failed."""

    number: int


class GiveUp(NamedTuple):
    """Effect: a leader learned that its writes were refused."""

    number: int


class Hear(NamedTuple):
    """Effect: the late fetch arrived."""

    fetch: Fetch


class Lose(NamedTuple):
    """Effect: a controller elected, with an Event, a broker that may have lost bytes; all that is left is in `log`."""

    decision: Decision
    log: Log


Effect = Acknowledge | Send | Begin | Learn | Fail | GiveUp | Hear | Lose


class SharedSteps(NamedTuple):
    """What follows from the shared part alone. `readable` and `promise` are numbers above `BITS`."""

    plain: list[Plain]
    losses: list[Decision]
    readable: int
    promise: int
    # 1 for crashes and lost volumes, plus 2 for clean restarts.
    may_start: int
    broken: str


class OwnMoves(NamedTuple):
    """What a broker may do by itself, its starts by `SharedSteps.may_start`, and whom it fetches from."""

    plain: list[Plain]
    with_effect: list[Move]
    starts: tuple[list[Move], ...]
    follows: int


class World:
    """The transition system of one configuration.

    Part 0 of a packed state is the shared one, part i + 1 broker i's. `strict`: also demand that every replica that may
    be elected next has what was acknowledged, not only who leads.
    """

    def __init__(self, bounds: Bounds, switches: Switches, *, strict: bool) -> None:
        self.bounds = bounds
        self.switches = switches
        self.strict = strict
        self.partitions: Table[PartitionState] = Table()
        self.brokers: Table[Broker] = Table()
        self.shared: Table[Shared] = Table()
        self._broker_moves = BrokerMoves(bounds, switches, self.partitions)
        self._starts = Starts(bounds, switches, self._broker_moves)
        self._shared_moves = SharedMoves(bounds, switches, self.partitions)
        self._shifts = tuple(BITS * (number + 1) for number in range(bounds.brokers))
        self._effects: Table[Effect] = Table()
        self._readables: Table[Readable] = Table()
        self._promises: Table[Promise] = Table()
        # Memories. Keys that combine two numbers hold the first one above `BITS`.
        self._effect_deltas: dict[int, int | None] = {}
        self._shared_steps: dict[int, SharedSteps] = {}
        self._own_moves: dict[int, OwnMoves] = {}
        self._reading_moves: dict[int, list[Move]] = {}
        self._fetch_moves: dict[int, list[Plain]] = {}
        self._kept_promises: set[int] = set()
        self._led_epochs: dict[int, int] = {}

    def initial(self) -> int:
        """Return the state in which a new partition has its leader and every broker knows it."""
        numbers = range(self.bounds.brokers)
        identities = {number: BrokerIdentity(number, 1, incarnation_name(number, 1)) for number in numbers}
        partition = self._shared_moves.intern(new_partition(numbers, identities))
        state = self.shared.intern(
            Shared(
                partition,
                current=1 << identities[0].broker_id,
                in_flight=(),
                leases=((1,),) * self.bounds.brokers,
                acknowledged=(),
                crashes=self.bounds.crashes,
                clean_restarts=self.bounds.clean_restarts,
            )
        )
        for number, shift in enumerate(self._shifts):
            broker = self._broker_moves.take_view(Broker(number), partition)
            state |= self.brokers.intern(broker) << shift
        return state

    def unpack(self, state: int) -> tuple[Shared, list[Broker]]:
        """Return the parts of a packed state."""
        brokers = [self.brokers[(state >> shift) & MASK] for shift in self._shifts]
        return self.shared[state & MASK], brokers

    # -- steps --

    def steps(self, state: int) -> list[tuple[str, int]]:
        """Return every step from a state: what happened, and the packed state after it."""
        shared = state & MASK
        found = self._shared_steps.get(shared)
        if found is None:
            found = self._find_shared_steps(shared)
        steps = [(label, state + delta) for label, delta in found.plain]
        parts = [(state >> shift) & MASK for shift in self._shifts]
        readable = found.readable
        own_moves, reading_moves, fetch_moves = self._own_moves, self._reading_moves, self._fetch_moves
        effect_deltas = self._effect_deltas
        for part in parts:
            own = own_moves.get(part)
            if own is None:
                own = self._find_own_moves(part)
            key = readable | part
            reading = reading_moves.get(key)
            if reading is None:
                reading = reading_moves[key] = self._find_reading_moves(key)
            for label, delta in own.plain:
                steps.append((label, state + delta))
            for moves in (own.with_effect, reading, own.starts[found.may_start]):
                for label, delta, effect in moves:
                    key = effect | shared
                    shared_delta = effect_deltas.get(key, 0)
                    if shared_delta == 0 and key not in effect_deltas:
                        shared_delta = self._find_effect_delta(key)
                    if shared_delta is not None:
                        steps.append((label, state + delta + shared_delta))
            if own.follows >= 0:
                key = part << BITS | parts[own.follows]
                fetching = fetch_moves.get(key)
                if fetching is None:
                    fetching = fetch_moves[key] = self._find_fetch_moves(key)
                for label, delta in fetching:
                    steps.append((label, state + delta))
        if found.losses:
            steps += self._losing_steps(state, found.losses, parts)
        return steps

    def _losing_steps(self, state: int, losses: list[Decision], parts: list[int]) -> list[tuple[str, int]]:
        steps = []
        for decision in losses:
            assert decision.loss_of is not None
            log = self.brokers[parts[decision.loss_of]].log
            key = self._effect(Lose(decision, log)) | (state & MASK)
            shared_delta = self._find_effect_delta(key)
            assert shared_delta is not None
            steps.append((decision.label, state + shared_delta))
        return steps

    def _effect(self, effect: Effect) -> int:
        return self._effects.intern(effect) << BITS

    def _delta(self, before: int, after: Broker) -> int:
        """Return what replaces a broker's part in a packed state."""
        return (self.brokers.intern(after) - before) << self._shifts[after.number]

    def _find_shared_steps(self, number: int) -> SharedSteps:
        shared = self.shared[number]
        after = list(self._shared_moves.land(shared))
        losses = []
        for decision in self._shared_moves.decisions(shared.partition, shared.leases):
            if decision.loss_of is None:
                after.append((decision.label, self._shared_moves.decide(shared, decision, ())))
            else:
                losses.append(decision)
        plain = [(label, self.shared.intern(target) - number) for label, target in after]
        readable = self._readables.intern(
            Readable(
                shared.partition,
                shared.current,
                shared.refused,
                shared.former,
                shared.leases,
                shared.late_fetch,
            )
        )
        promise = self._promises.intern(
            Promise(shared.partition, shared.acknowledged, shared.void_below != NO_EPOCH)
        )
        may_start = (1 if shared.crashes else 0) + (2 if shared.clean_restarts else 0)
        found = SharedSteps(plain, losses, readable << BITS, promise << BITS, may_start, shared.broken)
        self._shared_steps[number] = found
        return found

    def _find_effect_delta(self, key: int) -> int | None:
        number = key & MASK
        shared, moves = self.shared[number], self._shared_moves
        after: Shared | None
        match self._effects[key >> BITS]:
            case Acknowledge(passed, epoch):
                after = moves.acknowledge(shared, passed, epoch)
            case Send(sender, target):
                after = moves.attempt(shared, sender, target)
            case Begin(broker, generation, leads, clean, fetch):
                after = moves.started(shared, broker, generation, leads, clean, fetch)
            case Learn(broker, epoch, writes, newest):
                after = moves.viewed(shared, broker, epoch, writes, newest)
            case Fail():
                after = moves.log_failed(shared)
            case GiveUp(broker):
                after = moves.give_up(shared, broker)
            case Hear():
                after = shared._replace(late_fetch=None)
            case Lose(decision, log):
                after = moves.decide(shared, decision, log)
        delta = None if after is None else self.shared.intern(after) - number
        self._effect_deltas[key] = delta
        return delta

    def _find_own_moves(self, part: int) -> OwnMoves:
        broker, moves = self.brokers[part], self._broker_moves
        number = broker.number
        plain: list[Plain] = []
        with_effect: list[Move] = []
        for text, after in (
            (f"broker {number} syncs its log", moves.sync(broker)),
            (f"leader {number} appends a record", moves.append(broker)),
        ):
            if after is not None:
                plain.append((text, self._delta(part, after)))
        advanced = moves.advance(broker)
        if advanced is not None:
            passed = advanced.log[: advanced.high_watermark]
            label = f"leader {number} moves its high watermark to {len(passed)}: acknowledges {texts(passed)}"
            acknowledge = Acknowledge(passed, self.partitions[broker.view].leader_epoch)
            with_effect.append((label, self._delta(part, advanced), self._effect(acknowledge)))
        starts: tuple[list[Move], list[Move]] = ([], [])
        failed = moves.fail_log(broker)
        if failed is not None:
            label = f"broker {number}'s log fails and is cut at its synced end, {len(failed.log)}"
            starts[0].append((label, self._delta(part, failed), self._effect(Fail(number))))
        for start in self._starts.of(broker):
            effect = Begin(number, start.broker.generation, start.broker.leads, start.clean, start.fetch)
            starts[start.clean].append((start.label, self._delta(part, start.broker), self._effect(effect)))
        by_bounds: tuple[list[Move], ...] = ([], starts[0], starts[1], starts[0] + starts[1])
        own = OwnMoves(plain, with_effect, by_bounds, moves.leader_followed(broker))
        self._own_moves[part] = own
        return own

    def _find_reading_moves(self, key: int) -> list[Move]:
        """Find what a broker may do by what it reads of the shared part."""
        part, readable = key & MASK, self._readables[key >> BITS]
        broker, moves = self.brokers[part], self._broker_moves
        number = broker.number
        found: list[Move] = []
        is_current = readable.current & (1 << number)
        if not is_current:
            found += self._views(part, broker, readable)
        if moves.may_send(broker) and (is_current or not self.switches.compares_and_swaps):
            for attempt in moves.attempts(broker, readable.leases):
                send = Send(number, self._shared_moves.intern(attempt.target))
                found.append((attempt.label, self._delta(part, attempt.broker), self._effect(send)))
        may_give_up = readable.refused & (1 << number)
        if not self.switches.gives_up_only_what_was_refused:
            may_give_up = not is_current
        if broker.attempted and may_give_up:
            label = f"the store refuses what leader {number} sent, which it gives up"
            after = broker._replace(attempted=())
            found.append((label, self._delta(part, after), self._effect(GiveUp(number))))
        fetch = readable.late_fetch
        if fetch is not None and moves.hears(broker, fetch):
            after = broker
            if moves.knows_epoch(broker, fetch) and not moves.diverging(broker, fetch):
                after = moves.note_fetch(broker, fetch)
            label = f"leader {number} receives the late fetch of broker {fetch.broker}"
            found.append((label, self._delta(part, after), self._effect(Hear(fetch))))
        return found

    def _views(self, part: int, broker: Broker, readable: Readable) -> list[Move]:
        """Find what a broker may learn of the store."""
        found: list[Move] = []
        moves, number = self._broker_moves, broker.number
        views = [(readable.partition, True)]
        seen = NO_EPOCH if broker.view == NO_VIEW else self.partitions[broker.view].leader_epoch
        views += [(view, False) for view in readable.former if self.partitions[view].leader_epoch > seen]
        for view, newest in views:
            after = moves.take_view(broker, view)
            writes = moves.may_send(after)
            if after == broker and not writes:
                continue
            epoch = self.partitions[view].leader_epoch
            label = f"broker {number} learns the stored state"
            if not newest:
                label = f"broker {number} learns, late, the state of epoch {epoch}"
            learn = Learn(number, epoch, writes, newest)
            found.append((label, self._delta(part, after), self._effect(learn)))
        return found

    def _find_fetch_moves(self, key: int) -> list[Plain]:
        """Find what a follower and its leader may do together.

        Reporting and appending are separate steps, so that an answer may be lost. An answer that arrives late differs in
        nothing from one that arrived at once while the follower did nothing else: a follower with a newer view drops it.
        """
        part, leader_part = key >> BITS, key & MASK
        follower, leader, moves = self.brokers[part], self.brokers[leader_part], self._broker_moves
        found: list[Plain] = []
        fetch = moves.fetch(follower)
        if moves.hears(leader, fetch) and moves.knows_epoch(leader, fetch):
            names = f"broker {follower.number} fetches from leader {leader.number}"
            diverging = moves.diverging(leader, fetch)
            if diverging is not None:
                after = moves.truncate(follower, *diverging)
                label = f"{names}, whose log differs, and truncates to {texts(after.log)}"
                found.append((label, self._delta(part, after)))
            else:
                noted = moves.note_fetch(leader, fetch)
                if noted != leader:
                    label = f"{names} and reports {fetch.reported_end}"
                    found.append((label, self._delta(leader_part, noted)))
                replicated = moves.replicate(follower, leader)
                if replicated is not None:
                    label = f"{names} and appends {replicated.log[-1]}"
                    found.append((label, self._delta(part, replicated)))
                learned = moves.learn_high_watermark(follower, leader)
                if learned is not None:
                    label = f"{names} and learns the high watermark {learned.high_watermark}"
                    found.append((label, self._delta(part, learned)))
        return found

    # -- properties --

    def violation(self, state: int) -> str:
        """Return what is wrong in a state, nothing if all is well."""
        shared = state & MASK
        found = self._shared_steps.get(shared)
        if found is None:
            found = self._find_shared_steps(shared)
        if found.broken:
            return found.broken
        promise = found.promise
        led: list[int] = []
        for shift in self._shifts:
            part = (state >> shift) & MASK
            if promise | part not in self._kept_promises:
                broken = self._find_broken_promise(self._promises[promise >> BITS], self.brokers[part])
                if broken:
                    return broken
                self._kept_promises.add(promise | part)
            epoch = self._led_epochs[part]
            if epoch >= 0:
                if epoch in led:
                    return f"two brokers lead in epoch {epoch}"
                led.append(epoch)
        return ""

    def _find_broken_promise(self, promise: Promise, broker: Broker) -> str:
        stored, acknowledged = self.partitions[promise.partition], promise.acknowledged
        leads_now = False
        part = self.brokers.intern(broker)
        self._led_epochs[part] = self.partitions[broker.view].leader_epoch if broker.leads else -1
        if broker.leads and stored.leader == broker.number:
            leads_now = self._led_epochs[part] == stored.leader_epoch
        if leads_now and broker.log[: len(acknowledged)] != acknowledged:
            return (
                f"leader {broker.number} of the newest epoch has {texts(broker.log)}; "
                f"acknowledged was {texts(acknowledged)}"
            )
        passed = broker.log[: broker.high_watermark]
        if passed != acknowledged[: len(passed)] and not promise.void:
            return f"broker {broker.number} shows {texts(passed)}; acknowledged was {texts(acknowledged)}"
        if self.strict and (broker.number, broker.generation) in (*stored.isr, *stored.elr):
            end = len(broker.log) if self.bounds.flush_replicated else broker.synced
            if broker.log[:end][: len(acknowledged)] != acknowledged:
                return f"broker {broker.number} may be elected without {texts(acknowledged)}"
        return ""

    # -- for people --

    def changes(self, before: int, after: int) -> list[str]:
        """Return a line for each broker that a step changed."""
        pairs = zip(self.unpack(before)[1], self.unpack(after)[1], strict=True)
        return [self._describe(broker) for former, broker in pairs if broker != former]

    def _describe(self, broker: Broker) -> str:
        if broker.view == NO_VIEW:
            role = "knows nothing of the store"
        elif broker.leads:
            role = f"leads epoch {self.partitions[broker.view].leader_epoch}"
        elif self.partitions[broker.view].leader in (NO_LEADER, broker.number):
            role = f"waits in epoch {self.partitions[broker.view].leader_epoch}"
        else:
            view = self.partitions[broker.view]
            role = f"follows broker {view.leader} in epoch {view.leader_epoch}"
        synced = "" if self.bounds.flush_replicated else f", synced {broker.synced}"
        return f"broker {broker.number}/{broker.generation}: log {texts(broker.log)}{synced}, {role}"


def texts(log: Log) -> str:
    """Return the records of a log in a few characters."""
    return "[" + " ".join(map(str, log)) + "]"
