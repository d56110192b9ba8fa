"""Configuration, timers, protocol choice, error translation, names that are too long, groups that are too large."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from tests.unit.group.support import Driver, subscription

from strandline_broker.errors import ErrorCode
from strandline_broker.group import join
from strandline_broker.group.config import GroupConfig
from strandline_broker.group.effects import Effects
from strandline_broker.group.members import Member, Protocols
from strandline_broker.group.outbox import response_error
from strandline_broker.group.protocol_selection import select_protocol, subscribed_topics
from strandline_broker.group.records import GroupValue, MemberValue, encode_group_key, encode_group_value
from strandline_broker.group.requests import JoinRequest
from strandline_broker.group.shard import GroupShard
from strandline_broker.group.timers import TimerTable


def test_configuration_by_kafkas_names() -> None:
    config = GroupConfig.from_broker_configs(
        {"group.max.size": "7", "offsets.retention.minutes": "2", "other": "x"}
    )
    assert config == GroupConfig(max_size=7, offsets_retention_minutes=2)
    assert config.offsets_retention_ms == 120_000
    with pytest.raises(ValueError, match="x"):
        GroupConfig.from_broker_configs({"group.max.size": "x"})


def test_later_deadlines_are_noted_and_earlier_ones_announced() -> None:
    timers = TimerTable()
    key = ("k",)
    assert timers.arm(key, 100) == (key, 100)
    assert timers.arm(key, 200) is None
    assert timers.fire(key, 100) == (False, (key, 200))
    assert timers.arm(key, 150) == (key, 150)
    assert timers.fire(key, 150) == (True, None)
    assert timers.fire(key, 999) == (False, None)
    assert timers.cancel(key) is None
    timers.arm(key, 1)
    assert timers.cancel(key) == (key, None)
    assert key not in timers


def member(name: str, *protocols: str) -> Member:
    supported: Protocols = tuple((protocol, b"") for protocol in protocols)
    return Member(name, None, "", "", 1, 1, "consumer", supported)


@pytest.mark.parametrize(
    ("preferences", "chosen"),
    [
        ([["a", "b"], ["b", "a"], ["b", "a"]], "b"),
        ([["a", "b"], ["b", "a"]], "a"),
        ([["c", "a", "b"], ["c", "b", "a"], ["b", "a"]], "b"),
        ([["a"]], "a"),
    ],
)
def test_the_protocol_with_the_most_votes(preferences: list[list[str]], chosen: str) -> None:
    members = [member(str(number), *names) for number, names in enumerate(preferences)]
    candidates = set.intersection(*map(set, preferences))
    assert select_protocol(members, candidates) == chosen


def test_subscriptions() -> None:
    assert subscribed_topics([subscription("a", "b"), subscription("b", "c")]) == frozenset("abc")
    assert subscribed_topics([b"\x00\x03" + subscription("a")[2:] + b"newer fields"]) == frozenset("a")
    assert subscribed_topics([subscription()]) == frozenset()
    for broken in (
        b"",
        b"\x00",
        b"\xff\xff\x00\x00\x00\x00",
        b"\x00\x00\x00\x00\x00\x09",
        subscription("abc")[:8],
    ):
        assert subscribed_topics([subscription("a"), broken]) is None


def test_repeated_protocols_count_once() -> None:
    assert join.unique_protocols((("a", b"1"), ("b", b"2"), ("a", b"3"))) == (("a", b"1"), ("b", b"2"))


def test_why_appends_fail() -> None:
    assert response_error(ErrorCode.NOT_LEADER_OR_FOLLOWER) is ErrorCode.NOT_COORDINATOR
    assert response_error(ErrorCode.KAFKA_STORAGE_ERROR) is ErrorCode.NOT_COORDINATOR
    assert response_error(ErrorCode.REQUEST_TIMED_OUT) is ErrorCode.COORDINATOR_NOT_AVAILABLE
    assert response_error(ErrorCode.RECORD_LIST_TOO_LARGE) is ErrorCode.UNKNOWN_SERVER_ERROR
    assert response_error(ErrorCode.INVALID_PRODUCER_EPOCH) is ErrorCode.INVALID_PRODUCER_EPOCH


_JOIN = JoinRequest("g", "", 10_000, 10_000, "consumer", (("range", b""),), api_version=3)


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (replace(_JOIN, group_id="x" * 40_000), ErrorCode.INVALID_GROUP_ID),
        (replace(_JOIN, group_id=""), ErrorCode.INVALID_GROUP_ID),
        (replace(_JOIN, group_instance_id="x" * 32_731), ErrorCode.INVALID_REQUEST),
        (replace(_JOIN, protocol_type="x" * 32_768), ErrorCode.INVALID_REQUEST),
        (replace(_JOIN, protocols=(("x" * 32_768, b""),)), ErrorCode.INVALID_REQUEST),
    ],
)
def test_names_that_no_record_can_hold(request_: JoinRequest, error: ErrorCode) -> None:
    driver = Driver(GroupConfig())
    driver.carry_out(driver.shard.join_group(driver.ask("t"), request_, 0))
    assert driver.answers["t"]["error_code"] is error
    assert driver.log == []


def test_a_long_client_id_is_cut_in_the_member_id() -> None:
    driver = Driver(GroupConfig(initial_rebalance_delay_ms=0))
    request = replace(_JOIN, client_id="ä" * 16_383)
    driver.carry_out(driver.shard.join_group(driver.ask("t"), request, 0))
    driver.run_until(0)
    member_id = driver.answers["t"]["member_id"]
    assert len(member_id.encode()) <= 32_767
    assert member_id.startswith("ää")


def test_pending_members_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(join, "MAX_PENDING_MEMBERS", 3)
    driver = Driver(GroupConfig())
    for number in range(4):
        request = replace(_JOIN, api_version=4)
        driver.carry_out(driver.shard.join_group(driver.ask(f"t{number}"), request, 0))
    errors = [driver.answers[f"t{number}"]["error_code"] for number in range(4)]
    assert errors == [ErrorCode.MEMBER_ID_REQUIRED] * 3 + [ErrorCode.GROUP_MAX_SIZE_REACHED]


def loaded_group(config: GroupConfig, count: int) -> Driver:
    members = tuple(MemberValue(f"m{n}", None, "c", "/h", 5_000, 10_000, b"", b"A") for n in range(count))
    driver = Driver(config)
    value = encode_group_value(GroupValue("consumer", 4, "range", "m0", 0, members))
    driver.shard.replay(encode_group_key("g"), value, offset=0, timestamp_ms=0)
    driver.carry_out(driver.shard.loaded(0))
    return driver


def test_a_loaded_group_that_is_too_large_rebalances() -> None:
    driver = loaded_group(GroupConfig(max_size=2), 3)
    assert driver.shard.describe_group("g")["group_state"] == "PreparingRebalance"
    for number in range(3):
        request = replace(_JOIN, member_id=f"m{number}")
        driver.carry_out(driver.shard.join_group(driver.ask(f"t{number}"), request, 0))
    driver.run_until(5_000)
    errors = [driver.answers[f"t{number}"]["error_code"] for number in range(3)]
    assert errors == [ErrorCode.NONE, ErrorCode.NONE, ErrorCode.GROUP_MAX_SIZE_REACHED]
    assert driver.answers["t0"]["generation_id"] == 5


def test_a_loaded_group_goes_on() -> None:
    driver = loaded_group(GroupConfig(), 3)
    assert driver.shard.describe_group("g")["group_state"] == "Stable"
    assert driver.timers == {("session", "g", f"m{n}"): 10_000 for n in range(3)} | {("expiry",): 600_000}


def test_outcomes_of_a_former_life_mean_nothing() -> None:
    driver = Driver(GroupConfig(), auto_commit=False)
    driver.carry_out(driver.shard.join_group(driver.ask("t"), _JOIN, 0))
    token = driver.in_flight[0][1].token
    assert driver.shard.unload() == ["t"]
    for effects in (
        driver.shard.append_committed(token, 0),
        driver.shard.append_failed(token, ErrorCode.NOT_COORDINATOR, 0),
        driver.shard.append_committed(None, 0),
        driver.shard.on_timer(("join", "g"), 10**9),
    ):
        assert effects == Effects()
    assert driver.shard.unload() == []


def test_rng_makes_member_ids() -> None:
    def first_id(seed: int) -> str:
        shard = GroupShard(GroupConfig(), random.Random(seed))
        effects = shard.join_group("t", replace(_JOIN, api_version=4, client_id="c"), 0)
        return str(effects.replies[0][1]["member_id"])

    assert first_id(1) == first_id(1)
    assert first_id(1) != first_id(2)
