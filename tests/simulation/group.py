"""Simulated members of a consumer group: classic protocol, committed offsets, and what they remember of both."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

from tests.simulation import messages
from tests.simulation.client import Build, SimClient
from tests.simulation.consumer import Follower
from tests.simulation.frames import ChannelClosed
from tests.simulation.journal import Commit, Committed

from strandline_broker.errors import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.simulation.journal import TopicPartition

SESSION_MS = 10_000
REBALANCE_MS = 5_000
_MEMBER_ID_REQUIRED = int(ErrorCode.MEMBER_ID_REQUIRED)
_ELSEWHERE = frozenset(
    map(
        int,
        (
            ErrorCode.COORDINATOR_LOAD_IN_PROGRESS,
            ErrorCode.COORDINATOR_NOT_AVAILABLE,
            ErrorCode.NOT_COORDINATOR,
            ErrorCode.REQUEST_TIMED_OUT,
        ),
    )
)
_FENCED = frozenset(map(int, (ErrorCode.UNKNOWN_MEMBER_ID, ErrorCode.ILLEGAL_GENERATION)))
_REBALANCE = int(ErrorCode.REBALANCE_IN_PROGRESS)


class _Rejoin(Exception):  # noqa: N818 - it says what to do
    """This membership is over; join again, perhaps elsewhere, perhaps as somebody new."""


class GroupMember:
    """One member of the group `group` that consumes `partitions` (of one topic) together with the others."""

    def __init__(
        self, client: SimClient, group: str, partitions: list[TopicPartition], unaware: Callable[[int], bool]
    ) -> None:
        """`unaware` says of a broker whether it takes itself for the coordinator and is wrong."""
        self.client = client
        self._unaware = unaware
        self.group = group
        self.topic = partitions[0][0]
        self._partitions = partitions
        self._follower = Follower(client)
        self._coordinator = -1
        self._member = ""
        self._generation = -1
        self._committed: dict[int, int] = {}

    async def run(self) -> None:
        """Be a member until the client's process ends."""
        client = self.client
        await client.refresh()
        while True:
            try:
                await self._join()
                await self._consume()
            except (ChannelClosed, _Rejoin):
                self._coordinator = -1
                await asyncio.sleep(client.rng.uniform(0.05, 0.3))
                await client.refresh()

    async def _ask(self, build: Build, timeout_s: float = 4.0) -> bytes:
        return await self.client.ask(self._coordinator, build, timeout_s)

    def _check(self, error: int) -> None:
        """Raise for everything that ends this membership."""
        if not error:
            return
        self.client.journal.count(f"group error {error}")
        if error in _FENCED:
            self._member = "" if error == int(ErrorCode.UNKNOWN_MEMBER_ID) else self._member
            raise _Rejoin
        if error in _ELSEWHERE or error == _REBALANCE:
            raise _Rejoin
        self.client.journal.violation("group refused", f"{self.client.name}: error {ErrorCode(error).name}")
        raise _Rejoin

    async def _join(self) -> None:
        client = self.client
        error, self._coordinator = messages.read_coordinator(
            await client.ask_any(lambda cid, name: messages.find_coordinator(cid, name, self.group))
        )
        self._check(error)
        for _ in range(2):
            joined = messages.read_joined(
                await self._ask(
                    lambda cid, name: messages.join_group(
                        cid, name, self.group, self._member, session_ms=SESSION_MS, rebalance_ms=REBALANCE_MS
                    ),
                    2 * REBALANCE_MS / 1000,
                )
            )
            if joined.error != _MEMBER_ID_REQUIRED:
                break
            self._member = joined.member
        self._check(joined.error)
        self._member, self._generation = joined.member, joined.generation
        assignments: dict[str, bytes] = {}
        if joined.leader == joined.member:
            members = sorted(joined.members)
            assignments = {
                member: json.dumps([index for _, index in self._partitions[number :: len(members)]]).encode()
                for number, member in enumerate(members)
            }
        error, assignment = messages.read_synced(
            await self._ask(
                lambda cid, name: messages.sync_group(
                    cid, name, self.group, self._generation, self._member, assignments
                ),
                2 * REBALANCE_MS / 1000,
            )
        )
        self._check(error)
        indexes: list[int] = json.loads(assignment) if assignment else []
        client.journal.event(f"{client.name} generation {self._generation} has {indexes}")
        client.journal.count("group joins")
        await self._take_over(indexes)

    async def _take_over(self, indexes: list[int]) -> None:
        """Go on where the group's commits say."""
        client = self.client
        if not indexes:
            self._follower.assign({})
            return
        started = client.loop.time()
        unaware = self._unaware(self._coordinator)
        error, offsets = messages.read_offsets(
            await self._ask(
                lambda cid, name: messages.offset_fetch(cid, name, self.group, self.topic, indexes)
            )
        )
        self._check(error)
        ended = client.loop.time()
        for index, offset in offsets.items():
            client.journal.committed[self.topic, index].append(Committed(offset, started, ended, unaware))
        self._committed = {index: max(0, offset) for index, offset in offsets.items()}
        self._follower.assign({(self.topic, index): self._committed[index] for index in indexes})

    async def _consume(self) -> None:
        client = self.client
        next_beat = client.loop.time()
        stays_until = client.loop.time() + client.rng.uniform(5, 40)
        while True:
            found = await self._follower.poll()
            if not found:
                await asyncio.sleep(client.rng.uniform(0.05, 0.2))
            now = client.loop.time()
            if now < next_beat:
                continue
            next_beat = now + client.rng.uniform(0.5, 1.5)
            error = messages.read_error(
                await self._ask(
                    lambda cid, name: messages.heartbeat(
                        cid, name, self.group, self._generation, self._member
                    )
                )
            )
            if error in (0, _REBALANCE):
                await self._commit()
            self._check(error)
            if not client.stopping and now > stays_until:
                await self._ask(lambda cid, name: messages.leave_group(cid, name, self.group, self._member))
                client.journal.event(f"{client.name} left")
                self._member = ""
                await asyncio.sleep(client.rng.uniform(0.1, 3))
                raise _Rejoin

    async def _commit(self) -> None:
        client = self.client
        offsets = {
            partition[1]: position.offset
            for partition, position in self._follower.positions.items()
            if position.offset > self._committed.get(partition[1], 0)
        }
        if not offsets:
            return
        commits = {index: Commit(offset, client.loop.time()) for index, offset in offsets.items()}
        for index, commit in commits.items():
            client.journal.commits[self.topic, index].append(commit)
        answer = await self._ask(
            lambda cid, name: messages.offset_commit(
                cid, name, self.group, self._generation, self._member, self.topic, offsets
            )
        )
        errors = messages.read_committed(answer)
        for index, commit in commits.items():
            if not errors[index]:
                commit.ended = client.loop.time()
                self._committed[index] = commit.offset
                client.journal.count("commits")
        for error in errors.values():
            self._check(error)
