"""Workers share what is to be done; the first failure ends all, and is not mistaken for a cancellation."""

from __future__ import annotations

import asyncio

import pytest

from strandline_tiered.workers import run_workers


def test_workers_share_the_work() -> None:
    waiting, done = iter(range(20)), []

    async def worker() -> None:
        for number in waiting:
            await asyncio.sleep(0)
            done.append(number)

    asyncio.run(run_workers(3, worker))
    assert sorted(done) == list(range(20))


def test_the_first_failure_ends_the_others_and_is_what_a_timeout_around_lets_through() -> None:
    ended: list[str] = []

    async def test() -> None:
        names = iter(("fails", "waits"))

        async def worker() -> None:
            name = next(names)
            try:
                if name == "fails":
                    await asyncio.sleep(0)
                    raise OSError("no")
                await asyncio.Event().wait()
            finally:
                ended.append(name)

        with pytest.raises(OSError, match="no"):
            async with asyncio.timeout(10):
                await run_workers(2, worker)
        async with asyncio.timeout(10):
            await asyncio.sleep(0)

    asyncio.run(test())
    assert ended == ["fails", "waits"]
