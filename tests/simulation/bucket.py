"""The bucket of the simulator: one that all brokers share, and the way of each host to it.

A request travels, is done in one atomic step, and its answer travels back. What was sent belongs to the bucket: it is done
also when its sender is dead by then, or has given up. Between a host and the bucket are the cuts of `network.Links` and the
faults of `strandline_tiered.faulty_store`; a `Trap` waits for a request of some kind, and has something happen to its
sender at that very moment.

Who uses it: `Cluster`, where a schedule tiers. Nothing is ever overwritten with other content (design invariant 4): that is
checked here, everything else by whom `on_stored` and `on_deleted` tell.
"""

from __future__ import annotations

import contextvars
import random
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from tests.simulation.loop import VirtualLoop, current_process

from strandline_tiered.content import as_source, pieces
from strandline_tiered.faulty_store import FaultyStore, Kind, RandomFaults
from strandline_tiered.keys import ClaimName, ManifestName, PageName, ParsedKey, SegmentName, parse_key
from strandline_tiered.object_store import (
    AlreadyThere,
    Content,
    NoSuchObject,
    ObjectInfo,
    ObjectStoreError,
    check_key,
)
from strandline_tiered.probe import PROBE_PREFIX
from strandline_tiered.retrying_store import RetryingStore, RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.simulation.journal import Journal
    from tests.simulation.network import Links

    from strandline_tiered.faulty_store import Fault, FaultPlan

T = TypeVar("T")

BUCKET_HOST = "bucket"
SERVICE_S = (0.002, 0.03)
"""What a request takes at the bucket, beside its ways."""
MAX_LATE_S = 8.0
"""So much later, at most, lands what its sender does not wait for."""
RETRIES = RetryPolicy(deadline_s=8.0, attempt_timeout_s=2.0, longest_wait_s=2.0)
"""What `open_store` does, at the pace of a schedule."""
_KINDS = {SegmentName: "segment", ManifestName: "manifest", ClaimName: "claim", PageName: "page"}

REQUESTS = ("put segment", "put manifest", "put claim", "put page", "list", "get", "delete")
"""The kinds of requests for which there are traps."""


@dataclass
class Trap:
    """Springs at the request of a kind that comes after `skip` others.

    `when`: before it is sent, after it was done but before its answer, or "late": it lands after its sender's fate.
    """

    request: str
    skip: int
    when: str
    spring: Callable[[str], None]
    """What happens to the host that sends it."""


class Bucket:
    """All objects. `on_stored` and `on_deleted` are told of each as soon as it is, or is gone."""

    def __init__(self, loop: VirtualLoop, links: Links, rng: random.Random, journal: Journal) -> None:
        self.loop = loop
        self.links = links
        self.journal = journal
        self.objects: dict[str, bytes] = {}
        self.on_stored: Callable[[ParsedKey, bytes], None] | None = None
        self.on_deleted: Callable[[ParsedKey], None] | None = None
        self.traps: list[Trap] = []
        self.context = contextvars.Context()
        self._rng = rng
        self._written: dict[str, bytes] = {}
        self._hosts: dict[str, _HostBucket] = {}

    def client(self, host: str, rng: random.Random) -> RetryingStore:
        """Return what a process on `host` gets: it tries again by itself. `rng` is for its jitter."""
        return RetryingStore(self._of(host), RETRIES, rng=rng)

    def _of(self, host: str) -> _HostBucket:
        found = self._hosts.get(host)
        if found is None:
            way = _Way(self, host, random.Random(self._rng.random()))
            found = self._hosts[host] = _HostBucket(way, random.Random(self._rng.random()))
        return found

    def set_faults(self, hosts: Sequence[str], rates: Mapping[str, float], requests: str = "") -> None:
        """Give each kind of fault (by the name of its `Kind`) its share of the requests of these hosts; none ends them.

        `requests`: of those kinds only that begin like this.
        """
        for host in hosts:
            self._of(host).set_faults({Kind[name]: rate for name, rate in rates.items()}, requests)

    def heal(self) -> None:
        """Let every request pass."""
        self.traps.clear()
        for host in self._hosts.values():
            host.set_faults({}, "")

    # -- what is done --------------------------------------------------------------------------------------------------

    def put(self, key: str, data: bytes, *, if_absent: bool) -> None:
        """Store an object. Raises AlreadyThere."""
        if if_absent and key in self.objects:
            raise AlreadyThere(key)
        if self._written.setdefault(key, data) != data:
            self.journal.violation("overwritten", f"{short(key)} with other content")
        self.objects[key] = data
        self._tell(key, lambda parsed: self.on_stored and self.on_stored(parsed, data))

    def find(self, key: str) -> bytes:
        """Return an object. Raises NoSuchObject."""
        try:
            return self.objects[key]
        except KeyError:
            raise NoSuchObject(key) from None

    def list_objects(self, prefix: str, after: str) -> list[ObjectInfo]:
        """See `ObjectStore.list`. All keys are ASCII."""
        keys = sorted(key for key in self.objects if key > after and key.startswith(prefix))
        return [ObjectInfo(key, len(self.objects[key])) for key in keys]

    def delete(self, keys: Sequence[str]) -> None:
        """Delete what is there."""
        for key in keys:
            if self.objects.pop(key, None) is not None:
                self._tell(key, lambda parsed: self.on_deleted and self.on_deleted(parsed))

    def _tell(self, key: str, tell: Callable[[ParsedKey], object]) -> None:
        if key.startswith(f"{PROBE_PREFIX}/"):
            return  # brokers try at their start what the bucket can do
        parsed = parse_key(key)
        if parsed is not None:
            tell(parsed)
        elif not key.startswith(f"{PROBE_PREFIX}/"):
            self.journal.violation("unknown key", key)

    def trap_for(self, operation: str, key: str) -> Trap | None:
        """Return the trap that a request springs."""
        if not self.traps:
            return None
        kind = kind_of(operation, key)
        for trap in self.traps:
            if trap.request == kind:
                if trap.skip == 0:
                    self.traps.remove(trap)
                    return trap
                trap.skip -= 1
        return None


class _HostBucket(FaultyStore):
    """The bucket as one host reaches it, in all lives of its broker."""

    def __init__(self, way: _Way, rng: random.Random) -> None:
        super().__init__(way)
        self._rng = rng

    def set_faults(self, rates: Mapping[Kind, float], requests: str) -> None:
        random_faults = RandomFaults(self._rng, rates, longest_delay_s=MAX_LATE_S)
        self.plan = _FaultsOf(random_faults, requests) if rates else None

    async def close(self) -> None:
        """Keep what is on its way: it lands although its sender is gone."""


class _FaultsOf:
    """Faults for requests of some kinds only; see `FaultPlan`."""

    def __init__(self, plan: FaultPlan, requests: str) -> None:
        self._plan = plan
        self._requests = requests

    def draw(self, operation: str, key: str) -> Fault | None:
        """See `FaultPlan.draw`."""
        befalls = kind_of(operation, key).startswith(self._requests)
        return self._plan.draw(operation, key) if befalls else None


class _Way:
    """See `ObjectStore`: what one host sends, and what it hears of that."""

    def __init__(self, bucket: Bucket, host: str, rng: random.Random) -> None:
        self._bucket = bucket
        self._host = host
        self._rng = rng

    async def put(self, key: str, content: Content, *, if_absent: bool = False) -> None:
        """See `ObjectStore.put`."""
        check_key(key)
        data = b"".join(pieces(as_source(content)))
        await self._ask("put", key, lambda: self._bucket.put(key, data, if_absent=if_absent), writes=True)

    async def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        """See `ObjectStore.get`."""
        return await self._ask("get", key, lambda: self._bucket.find(key)[start:end])

    async def head(self, key: str) -> ObjectInfo:
        """See `ObjectStore.head`."""
        return await self._ask("head", key, lambda: ObjectInfo(key, len(self._bucket.find(key))))

    async def list(self, prefix: str, *, after: str = "") -> AsyncIterator[ObjectInfo]:
        """See `ObjectStore.list`."""
        for info in await self._ask("list", prefix, lambda: self._bucket.list_objects(prefix, after)):
            yield info

    async def copy(self, source: ObjectInfo, key: str) -> None:
        """See `ObjectStore.copy`."""
        check_key(key)
        await self._ask(
            "copy",
            key,
            lambda: self._bucket.put(key, self._bucket.find(source.key), if_absent=False),
            writes=True,
        )

    async def delete(self, keys: Sequence[str]) -> None:
        """See `ObjectStore.delete`."""
        doomed = list(keys)
        first = doomed[0] if doomed else ""
        await self._ask("delete", first, lambda: self._bucket.delete(doomed), writes=True)

    async def close(self) -> None:
        """See `ObjectStore.close`."""

    async def _ask(self, operation: str, key: str, work: Callable[[], T], *, writes: bool = False) -> T:
        bucket, loop, links = self._bucket, self._bucket.loop, self._bucket.links
        process = current_process()
        answer = loop.create_future()
        trap = bucket.trap_for(operation, key) if process is not None else None
        if trap is not None and trap.when == "before":
            trap.spring(self._host)
            # Who was killed here comes no further, and who was stopped goes on later.
            await (loop.create_future() if process is not None and not process.alive else _turn(loop))

        def reply(outcome: T | ObjectStoreError) -> None:
            if not answer.done():
                answer.set_result(outcome)

        def arrive(*, late: bool = False) -> None:
            waits = not late and process is not None and process.alive and not answer.done()
            bucket.journal.count(f"bucket {kind_of(operation, key)}")
            if writes:
                self._note(operation, key, waits=waits)
            outcome: T | ObjectStoreError
            try:
                outcome = work()
            except ObjectStoreError as error:
                outcome = error
            if trap is not None and trap.when == "after":
                trap.spring(self._host)
            if not late and not links.is_cut(BUCKET_HOST, self._host):
                loop.call_later(
                    links.delay_s(BUCKET_HOST, self._host), reply, outcome, context=bucket.context
                )

        late = trap is not None and trap.when == "late"
        if late or links.is_cut(self._host, BUCKET_HOST):
            # Lost, or on a way that takes long. Who asks waits for nothing.
            if writes and (late or self._rng.random() < 0.5):
                after_s = self._rng.uniform(0.1, MAX_LATE_S)
                loop.call_later(after_s, lambda: arrive(late=True), context=bucket.context)
            if late and trap is not None:
                trap.spring(self._host)
        else:
            low, high = SERVICE_S
            delay_s = links.delay_s(self._host, BUCKET_HOST) + self._rng.uniform(low, high)
            loop.call_later(delay_s, arrive, context=bucket.context)
        outcome = await answer
        if isinstance(outcome, ObjectStoreError):
            raise outcome
        done: T = outcome
        return done

    def _note(self, operation: str, key: str, *, waits: bool) -> None:
        journal = self._bucket.journal
        if not waits:
            journal.count(f"late {operation}s")
        journal.event(f"{self._host} {operation}s {short(key)}{'' if waits else ', late'}")


async def _turn(loop: VirtualLoop) -> None:
    """Let others run."""
    turn = loop.create_future()
    loop.call_soon(turn.set_result, None)
    await turn


def kind_of(operation: str, key: str) -> str:
    """Return what a request is about, one of REQUESTS or something of no interest."""
    if operation != "put":
        return operation
    parsed = parse_key(key)
    return f"put {_KINDS.get(type(parsed.name), 'other') if parsed is not None else 'other'}"


def short(key: str) -> str:
    """Return a key as events show it."""
    parsed = parse_key(key)
    if parsed is None:
        return key
    return f"{parsed.topic.topic}-{parsed.partition} {parsed.name}"
