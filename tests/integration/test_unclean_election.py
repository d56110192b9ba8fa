"""An election outside the ISR, with brokers that really copy: never by itself, and with all that follows where allowed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.integration.replicated import TOPIC, Trio, trio
from tests.integration.support import run, until
from tests.integration.test_reassignment import ask, states

from strandline_broker.errors import ErrorCode
from strandline_broker.wire.api_keys import ApiKey

_UNCLEAN = 1
_TOPIC_RESOURCE = 2
_SET = 0


async def elect(three: Trio) -> ErrorCode:
    """Ask for an unclean election of the one partition."""
    partitions = ({"topic": TOPIC, "partitions": (0,)},)
    body = {"election_type": _UNCLEAN, "topic_partitions": partitions, "timeout": 5000}
    answer = await ask(three, ApiKey.ELECT_LEADERS, 2, body)
    (row,) = answer.replica_election_results[0].partition_result
    return ErrorCode(row.error_code)


async def allow(three: Trio) -> None:
    """Set the topic's configuration, as kafka-configs does."""
    config = {
        "name": "unclean.leader.election.enable",
        "config_operation": _SET,
        "value": "true",
    }
    resource = {"resource_type": _TOPIC_RESOURCE, "resource_name": TOPIC, "configs": (config,)}
    body: dict[str, Any] = {"resources": (resource,), "validate_only": False}
    answer = await ask(three, ApiKey.INCREMENTAL_ALTER_CONFIGS, 1, body)
    assert [row.error_code for row in answer.responses] == [ErrorCode.NONE]


def test_a_replica_that_was_not_in_sync_leads_only_where_the_topic_says_so(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with trio(tmp_path) as three:
            await three.made.create_topic(TOPIC, replicas=2)
            leader = (await three.in_sync(2)).config.broker_id
            (follower,) = set(states(three)[0].replicas) - {leader}
            assert await three.write(b"both") == [0]
            assert await elect(three) is ErrorCode.ELECTION_NOT_NEEDED
            # The follower misses a record that is acknowledged.
            await three.crash(follower)
            await three.in_sync(1)
            assert await three.write(b"one") == [0]
            await three.crash(leader)
            await until(lambda: states(three)[0].leader == -1)
            await three.start(follower)
            assert await elect(three) is ErrorCode.ELIGIBLE_LEADERS_NOT_AVAILABLE
            assert states(three)[0].leader == -1
            assert states(three)[0].isr_ids == (leader,), "it waits for the one that has everything"
            # Allowed, it leads; and who comes back follows, without what only he had.
            await allow(three)
            await until(lambda: states(three)[0].leader == follower)
            assert await three.write(b"new") == [0]
            await three.start(leader)
            await three.in_sync(2)
            assert await three.read(three.brokers[follower]) == [b"both", b"new"]
            await until(lambda: set(three.log_ends().values()) == {2})
            await three.crash(follower)
            await until(lambda: three.leader() is three.brokers[leader])
            assert await three.read(three.brokers[leader]) == [b"both", b"new"]

    run(scenario())
