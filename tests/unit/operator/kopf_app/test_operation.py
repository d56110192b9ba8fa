"""What runs for one Cluster ends together."""

from __future__ import annotations

import asyncio

import pytest

from strandline_operator.kopf_app.operation import run_together


async def for_ever(ended: list[str]) -> None:
    try:
        await asyncio.Event().wait()
    finally:
        ended.append("for ever")


async def cancelled() -> None:
    raise asyncio.CancelledError


async def failing() -> None:
    raise ValueError("broken")


async def ending() -> None:
    return None


def test_none_goes_on_without_one_that_was_cancelled_or_just_ended() -> None:
    async def scenario() -> None:
        for work in (cancelled, ending):
            ended: list[str] = []
            with pytest.raises(RuntimeError, match="short ended"):
                await run_together({"long": for_ever(ended), "short": work()})
            assert ended == ["for ever"]

    asyncio.run(scenario())


def test_what_one_raises_is_raised_when_all_have_ended() -> None:
    async def scenario() -> None:
        ended: list[str] = []
        with pytest.raises(ValueError, match="broken"):
            await run_together({"long": for_ever(ended), "short": failing()})
        assert ended == ["for ever"]

    asyncio.run(scenario())


def test_a_cancellation_ends_all() -> None:
    async def scenario() -> None:
        ended: list[str] = []
        task = asyncio.create_task(run_together({"one": for_ever(ended), "two": for_ever(ended)}))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended == ["for ever", "for ever"]

    asyncio.run(scenario())
