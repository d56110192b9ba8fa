"""A throttled follower catches up no faster than allowed, and holds nobody else back (KIP-73)."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from tests.integration.replicated import TOPIC, Trio, trio
from tests.integration.support import run, until

from strandline_broker.server.replication import Throttles
from strandline_broker.wire.api_keys import ApiKey

RATE = 400_000
BATCH_BYTES = 50_000
BATCHES = 24
_BROKER_CONFIG = 4
_SET = 0


async def limit(three: Trio, direction: str, rate: int) -> None:
    """Set the rate as `kafka-configs` does, and wait until every broker that runs knows it."""
    name = f"{direction}.replication.throttled.rate"
    config = {"name": name, "config_operation": _SET, "value": str(rate)}
    resource = {"resource_type": _BROKER_CONFIG, "resource_name": "", "configs": [config]}
    client = await three.made.connect(next(iter(three.brokers.values())))
    answer = await client.ask(
        ApiKey.INCREMENTAL_ALTER_CONFIGS, 1, {"resources": [resource], "validate_only": False}
    )
    await client.close()
    assert answer.responses[0].error_code == 0

    def rates() -> set[float | None]:
        return {getattr(broker.replication.throttles, direction).rate for broker in three.brokers.values()}

    await until(lambda: rates() == {rate})


def throttles(three: Trio, broker_id: int) -> Throttles:
    return three.brokers[broker_id].replication.throttles


@pytest.mark.parametrize("direction", ["leader", "follower"])
def test_a_throttled_catch_up_takes_its_time(tmp_path: Path, direction: str) -> None:
    async def scenario() -> None:
        async with trio(tmp_path, replica_fetch_max_bytes="60000") as three:
            names = {f"{direction}.replication.throttled.replicas": "*", "min.insync.replicas": "2"}
            await three.made.create_topic(TOPIC, config=names, replicas=3)
            leader = (await three.in_sync(3)).config.broker_id
            late = next(broker_id for broker_id in three.brokers if broker_id != leader)
            await three.crash(late)
            await three.in_sync(2)
            assert await three.write(*(b"x" * BATCH_BYTES for _ in range(BATCHES))) == [0] * BATCHES

            await limit(three, direction, RATE)
            began = time.monotonic()
            await three.start(late)
            await until(
                lambda: throttles(three, late).follower.rate == throttles(three, leader).follower.rate
            )
            # Who is in sync does not wait, although the share is used up.
            slowest = 0.0
            while (behind := three.log_ends()[late]) < BATCHES:
                writing = time.monotonic()
                assert await three.write(b"y") == [0]
                slowest = max(slowest, time.monotonic() - writing)
                assert len(three.isr()) == 2, f"in sync at {behind}"
            took = time.monotonic() - began

            # One second's worth is free, and the last read may overdraw.
            assert took > (BATCHES * BATCH_BYTES - 60_000) / RATE - 1.0
            assert slowest < took / 2
            throttle = getattr(throttles(three, leader if direction == "leader" else late), direction)
            assert throttle.held_back > 0
            assert throttle.passed_bytes >= BATCHES * BATCH_BYTES
            await three.in_sync(3)

    run(scenario())


def test_what_is_not_named_is_not_throttled(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with trio(tmp_path) as three:
            names = {"follower.replication.throttled.replicas": "1:0,1:1,1:2", "min.insync.replicas": "2"}
            await three.made.create_topic(TOPIC, config=names, replicas=3)
            leader = (await three.in_sync(3)).config.broker_id
            late = next(broker_id for broker_id in three.brokers if broker_id != leader)
            await three.crash(late)
            assert await three.write(*(b"x" * BATCH_BYTES for _ in range(4))) == [0] * 4
            await limit(three, "follower", 1)
            await three.start(late)
            await three.in_sync(3)
            assert throttles(three, late).follower.passed_bytes == 0

    run(scenario())
