"""The language of `traces/*.txt`.

A file is a list of blocks with a blank line between them. A block is one or more commands, a line `---`, and what came of
them, one line per effect. Lines that begin with `#` say why. The same shard goes through the whole file. Run the tests with
STRANDLINE_REWRITE_TRACES=1 to write what really came instead (and then read the diff).

| command | |
|---|---|
| `config NAME=VALUE ...` | fields of GroupConfig; starts a fresh shard |
| `manual` / `auto` | appends are committed by command / at once |
| `@MS` | let time pass until then; timers fire |
| `join T G [member=M] [instance=I] [v=9] [type=consumer] [protocols=a:X,b:Y] [session=MS] [rebalance=MS]` | |
| the same with `topics=t,u` | protocol `range` with a consumer's subscription |
| `sync T G member=M gen=N [instance=I] [type=..] [protocol=..] [assign=M:X,M:Y]` | |
| `beat T G member=M gen=N [instance=I]` | |
| `leave T G [v=5] MEMBER\\|MEMBER/INSTANCE\\|/INSTANCE ...` | |
| `commit T G [member=M] [gen=N] [instance=I] [v=9] [retention=MS] topic-partition=offset[:metadata] ...` | |
| `fetch G [stable] [topic-partition ...]` | |
| `delete-offsets T G topic-partition ...`, `delete-group T G` | |
| `describe G [v=6]`, `list [state=S] [type=T]` | |
| `expire`, `gone TOPIC ...` | a sweep; deleted topics |
| `committed`, `failed ERROR` | outcome of the oldest append |
| `reload` | another broker takes over |
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.unit.group.support import Driver, subscription

from strandline_broker.errors import ErrorCode
from strandline_broker.group.config import GroupConfig
from strandline_broker.group.requests import (
    CommitRequest,
    DeleteOffsetsRequest,
    FetchOffsetsRequest,
    HeartbeatRequest,
    JoinRequest,
    LeaveRequest,
    LeavingMember,
    PartitionCommit,
    SyncRequest,
    TopicCommit,
    TopicPartitions,
)


@dataclass
class Words:
    """One command, taken apart."""

    positional: list[str]
    named: dict[str, str]

    def text(self, name: str, default: str = "") -> str:
        return self.named.pop(name, default)

    def number(self, name: str, default: int) -> int:
        return int(self.named.pop(name, default))

    def optional(self, name: str) -> str | None:
        return self.named.pop(name, None)


class Trace:
    """Runs the commands of one file."""

    def __init__(self) -> None:
        self.driver = Driver(GroupConfig())
        self._commands: dict[str, Callable[[Words], None]] = {
            "config": self._config,
            "manual": self._manual,
            "auto": self._auto,
            "join": self._join,
            "sync": self._sync,
            "beat": self._beat,
            "leave": self._leave,
            "commit": self._commit,
            "fetch": self._fetch,
            "delete-offsets": self._delete_offsets,
            "delete-group": self._delete_group,
            "describe": self._describe,
            "list": self._list,
            "expire": self._expire,
            "gone": self._gone,
            "committed": lambda words: self.driver.commit_next(),
            "failed": lambda words: self.driver.fail_next(ErrorCode[words.positional[0]]),
            "reload": lambda words: self.driver.reload(),
        }

    def run(self, command: str) -> list[str]:
        """Run one line; return what came of it."""
        self.driver.lines.clear()
        if command.startswith("@"):
            self.driver.run_until(int(command[1:]))
        else:
            name, *rest = command.split()
            named = dict(word.split("=", 1) for word in rest if "=" in word) if name != "commit" else {}
            words = Words(
                [word for word in rest if word not in {f"{k}={v}" for k, v in named.items()}], named
            )
            self._commands[name](words)
            assert not words.named, f"unknown words {words.named} in {command!r}"
        return list(self.driver.lines)

    def _config(self, words: Words) -> None:
        self.driver = Driver(GroupConfig(**{name: int(value) for name, value in words.named.items()}))
        words.named.clear()

    def _manual(self, words: Words) -> None:
        self.driver.auto_commit = False

    def _auto(self, words: Words) -> None:
        self.driver.auto_commit = True

    def _join(self, words: Words) -> None:
        ticket, group = words.positional
        topics = words.optional("topics")
        protocols = tuple(
            (name, metadata.encode())
            for name, _, metadata in (
                part.partition(":") for part in words.text("protocols", "range:").split(",")
            )
            if name
        )
        if topics is not None:
            protocols = (("range", subscription(*topics.split(","))),)
        request = JoinRequest(
            group,
            self.driver.member_id(words.text("member")),
            words.number("session", 10_000),
            words.number("rebalance", 60_000),
            words.text("type", "consumer"),
            protocols,
            words.optional("instance"),
            words.text("client", "c"),
            "/127.0.0.1",
            words.optional("reason"),
            words.number("v", 9),
        )
        driver = self.driver
        driver.carry_out(driver.shard.join_group(driver.ask(ticket), request, driver.now_ms))

    def _sync(self, words: Words) -> None:
        ticket, group = words.positional
        pairs = (part.partition(":") for part in words.text("assign").split(",") if part)
        request = SyncRequest(
            group,
            self.driver.member_id(words.text("member")),
            words.number("gen", 1),
            words.optional("instance"),
            words.optional("type"),
            words.optional("protocol"),
            tuple((self.driver.member_id(member), assignment.encode()) for member, _, assignment in pairs),
        )
        driver = self.driver
        driver.carry_out(driver.shard.sync_group(driver.ask(ticket), request, driver.now_ms))

    def _beat(self, words: Words) -> None:
        ticket, group = words.positional
        member = self.driver.member_id(words.text("member"))
        request = HeartbeatRequest(group, member, words.number("gen", 1), words.optional("instance"))
        driver = self.driver
        driver.carry_out(driver.shard.heartbeat(driver.ask(ticket), request, driver.now_ms))

    def _leave(self, words: Words) -> None:
        ticket, group, *members = words.positional
        leavers = tuple(
            LeavingMember(self.driver.member_id(member), instance or None, "test")
            for member, _, instance in (word.partition("/") for word in members)
        )
        driver = self.driver
        request = LeaveRequest(group, leavers, words.number("v", 5))
        driver.carry_out(driver.shard.leave_group(driver.ask(ticket), request, driver.now_ms))

    def _commit(self, words: Words) -> None:
        ticket, group, *rest = words.positional
        options = {"member": "", "gen": "-1", "instance": "", "v": "9", "retention": "-1"}
        topics: dict[str, list[PartitionCommit]] = {}
        for word in rest:
            name, _, value = word.partition("=")
            if name in options:
                options[name] = value
                continue
            topic, _, partition = name.rpartition("-")
            offset, _, metadata = value.partition(":")
            commit = PartitionCommit(int(partition), int(offset), metadata=metadata)
            topics.setdefault(topic, []).append(commit)
        request = CommitRequest(
            group,
            tuple(TopicCommit(topic, tuple(partitions)) for topic, partitions in topics.items()),
            self.driver.member_id(options["member"]),
            int(options["gen"]),
            options["instance"] or None,
            int(options["retention"]),
            int(options["v"]),
        )
        driver = self.driver
        driver.carry_out(driver.shard.commit_offsets(driver.ask(ticket), request, driver.now_ms))

    def _fetch(self, words: Words) -> None:
        group, *rest = words.positional
        stable = "stable" in rest
        names = [word for word in rest if word != "stable"]
        request = FetchOffsetsRequest(group, _topics(names) if names else None, require_stable=stable)
        for topic in self.driver.shard.fetch_offsets(request)["topics"]:
            for partition in topic["partitions"]:
                fields = (partition["committed_offset"], repr(partition["metadata"]))
                error = self.driver.show(partition["error_code"])
                name = f"{topic['name']}-{partition['partition_index']}"
                self.driver.lines.append(" ".join(map(str, (f"{name}:", *fields, error))))

    def _delete_offsets(self, words: Words) -> None:
        ticket, group, *rest = words.positional
        driver = self.driver
        request = DeleteOffsetsRequest(group, _topics(rest))
        driver.carry_out(driver.shard.delete_offsets(driver.ask(ticket), request, driver.now_ms))

    def _delete_group(self, words: Words) -> None:
        ticket, group = words.positional
        driver = self.driver
        driver.carry_out(driver.shard.delete_group(driver.ask(ticket), group, driver.now_ms))

    def _describe(self, words: Words) -> None:
        body = self.driver.shard.describe_group(words.positional[0], words.number("v", 6))
        self.driver.lines.append(self.driver.show(body))

    def _list(self, words: Words) -> None:
        states = [state for state in [words.optional("state")] if state]
        types = [kind for kind in [words.optional("type")] if kind]
        self.driver.lines += [
            self.driver.show(entry) for entry in self.driver.shard.list_groups(states, types)
        ]

    def _expire(self, words: Words) -> None:
        self.driver.carry_out(self.driver.shard.expire_offsets(self.driver.now_ms))

    def _gone(self, words: Words) -> None:
        self.driver.carry_out(self.driver.shard.partitions_deleted(words.positional, self.driver.now_ms))


def _topics(names: list[str]) -> tuple[TopicPartitions, ...]:
    topics: dict[str, list[int]] = {}
    for name in names:
        topic, _, partition = name.rpartition("-")
        topics.setdefault(topic, []).append(int(partition))
    return tuple(TopicPartitions(topic, tuple(partitions)) for topic, partitions in topics.items())
