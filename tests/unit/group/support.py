"""A shard in the hands of a test: appends with outcomes on demand, a clock, readable text for effects.

`Driver` does what the coordinator layer does, and holds it to the contract: every ticket is answered at most once, timers
fire in order, appends are committed in order.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from typing import Any

from strandline_broker.errors import ErrorCode
from strandline_broker.group.config import GroupConfig
from strandline_broker.group.effects import Body, Effects, TimerKey
from strandline_broker.group.records import (
    GroupKey,
    OffsetKey,
    decode_group_value,
    decode_key,
    decode_offset_value,
)
from strandline_broker.group.shard import GroupShard

_UUID = re.compile(r"[\w.]+-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def subscription(*topics: str) -> bytes:
    """Return a consumer's metadata, version 0 of the format."""
    parts = [b"\x00\x00", len(topics).to_bytes(4, "big")]
    for topic in topics:
        parts += [len(topic).to_bytes(2, "big"), topic.encode()]
    return b"".join(parts) + b"\xff\xff\xff\xff"


class Driver:
    """Carries effects out: the log, the clock and the waiting clients of one shard."""

    def __init__(self, config: GroupConfig, *, auto_commit: bool = True, seed: int = 0) -> None:
        self.config = config
        self.auto_commit = auto_commit
        self.seed = seed
        self.shard = GroupShard(config, random.Random(seed))
        self.now_ms = 0
        self.timers: dict[TimerKey, int] = {}
        self.log: list[tuple[int, bytes, bytes | None]] = []
        self.in_flight: list[tuple[int, Effects]] = []
        self.asked: Counter[str] = Counter()
        self.answers: dict[str, Body] = {}
        self.lines: list[str] = []
        self.aliases: dict[str, str] = {}
        self._append_number = 0

    # -- carrying effects out ------------------------------------------------------------------------------------

    def ask(self, ticket: str) -> str:
        """Issue a ticket."""
        self.asked[ticket] += 1
        assert self.asked[ticket] == 1, f"the test used ticket {ticket} twice"
        return ticket

    def carry_out(self, effects: Effects) -> None:
        """Do what a coordinator would."""
        assert (effects.token is not None) == bool(effects.records)
        assert effects.records or not effects.committed
        number = 0
        if effects.records:
            self._append_number = number = self._append_number + 1
            self.in_flight.append((number, effects))
            self.lines += [f"append {number}: {self.show_record(*record)}" for record in effects.records]
        for ticket, body in effects.replies:
            self._answer(str(ticket), body)
        for ticket, body in effects.committed:
            self.lines.append(f"after {number} reply {ticket}: {self.show(body)}")
        for key, deadline in effects.timers:
            if deadline is None:
                del self.timers[key]  # KeyError: the shard cancelled a timer that was not set
                self.lines.append(f"cancel {self.show(' '.join(key))}")
            else:
                assert deadline >= self.now_ms
                self.timers[key] = deadline
                self.lines.append(f"timer {self.show(' '.join(key))} @{deadline}")
        while self.auto_commit and self.in_flight:
            self.commit_next()

    def commit_next(self) -> None:
        """Let the oldest append be committed."""
        number, effects = self.in_flight.pop(0)
        self.lines.append(f"committed {number}")
        for key, value in effects.records:
            self.log.append((self.now_ms, key, value))
        for ticket, body in effects.committed:
            self._answer(str(ticket), body)
        self.carry_out(self.shard.append_committed(effects.token, self.now_ms))

    def fail_next(self, error: ErrorCode) -> None:
        """Let the oldest append fail."""
        number, effects = self.in_flight.pop(0)
        self.lines.append(f"failed {number}")
        self.carry_out(self.shard.append_failed(effects.token, error, self.now_ms))

    def fire(self, key: TimerKey) -> None:
        """Let one timer fire, as early as now."""
        self.now_ms = max(self.now_ms, self.timers.pop(key))
        self.lines.append(f"fired {self.show(' '.join(key))} @{self.now_ms}")
        self.carry_out(self.shard.on_timer(key, self.now_ms))

    def run_until(self, now_ms: int) -> None:
        """Let time pass."""
        while due := [(deadline, key) for key, deadline in self.timers.items() if deadline <= now_ms]:
            self.fire(min(due)[1])
        self.now_ms = now_ms

    def reload(self) -> None:
        """Let another broker take over: everything that is not committed is lost."""
        for ticket in self.shard.unload():
            self._answer(str(ticket), {"error_code": ErrorCode.NOT_COORDINATOR})
        self.in_flight.clear()
        self.timers.clear()
        self.shard = self.replayed()
        self.carry_out(self.shard.loaded(self.now_ms))

    def replayed(self) -> GroupShard:
        """Return a fresh shard that has read the log."""
        shard = GroupShard(self.config, random.Random(self.seed + len(self.log) + 1))
        for offset, (timestamp_ms, key, value) in enumerate(self.log):
            shard.replay(key, value, offset=offset, timestamp_ms=timestamp_ms)
        return shard

    def _answer(self, ticket: str, body: Body) -> None:
        assert ticket not in self.answers, f"ticket {ticket} is answered twice: {body}"
        assert ticket in self.asked, f"nobody asked with ticket {ticket}"
        self.answers[ticket] = body
        self.lines.append(f"reply {ticket}: {self.show(body)}")

    # -- showing -------------------------------------------------------------------------------------------------

    def show(self, value: Any) -> str:
        """Return short text for a body or a part of one; generated member ids become m1, m2, ..."""
        if isinstance(value, dict):
            fields = ((key, self.show(part)) for key, part in value.items() if key not in ("topic_id",))
            return (
                "{"
                + " ".join(f"{key}={text}" for key, text in fields if text not in ("", "-", "[]", "no"))
                + "}"
            )
        if isinstance(value, list | tuple):
            return "[" + ", ".join(self.show(part) for part in value) + "]"
        if isinstance(value, ErrorCode):
            return value.name if value is not ErrorCode.NONE else "-"
        if isinstance(value, bytes):
            return value.decode() if value.isascii() and value.decode().isprintable() else value.hex()
        if value is None or value is False:
            return "no"
        return _UUID.sub(lambda match: self.alias(match[0]), str(value))

    def alias(self, member_id: str) -> str:
        """Return the short name of a generated member id."""
        return self.aliases.setdefault(member_id, f"m{len(self.aliases) + 1}")

    def member_id(self, alias: str) -> str:
        """Return the generated member id of a short name; other names stand for themselves."""
        return next((member_id for member_id, name in self.aliases.items() if name == alias), alias)

    def show_record(self, key: bytes, value: bytes | None) -> str:
        """Return text for a record."""
        subject = decode_key(key)
        if isinstance(subject, OffsetKey):
            name = f"offset {subject.group_id} {subject.topic}-{subject.partition}"
            if value is None:
                return f"{name} tombstone"
            stored = decode_offset_value(value)
            expiry = f" until {stored.expire_timestamp_ms}" if stored.expire_timestamp_ms != -1 else ""
            return f"{name} = {stored.offset} {stored.metadata!r} at {stored.commit_timestamp_ms}{expiry}"
        assert isinstance(subject, GroupKey)
        if value is None:
            return f"group {subject.group_id} tombstone"
        group = decode_group_value(value)
        members = ", ".join(f"{self.show(m.member_id)}={self.show(m.assignment)}" for m in group.members)
        return (
            f"group {subject.group_id} generation {group.generation} type {group.protocol_type!r} protocol "
            f"{group.protocol} leader {self.show(group.leader)} at {group.current_state_timestamp_ms} [{members}]"
        )
