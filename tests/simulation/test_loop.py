"""The virtual loop: time that nobody waits for, processes that end without a word, and runs that cannot end."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from tests.simulation.loop import (
    Deadlock,
    Livelock,
    OutOfTime,
    Process,
    VirtualLoop,
    no_collections,
    simulate,
)
from tests.simulation.seams import SimThreads


def run(main: Any, **options: Any) -> Any:
    with no_collections():
        return simulate(main, VirtualLoop(**options))


def test_hours_pass_at_once_and_in_order() -> None:
    seen: list[tuple[str, float]] = []

    async def main(loop: VirtualLoop) -> None:
        loop.call_later(7_200, lambda: seen.append(("late", loop.time())))
        loop.call_later(0.5, lambda: seen.append(("early", loop.time())))
        await asyncio.sleep(10_000)
        seen.append(("end", round(loop.time())))

    run(main, limit_s=20_000)
    assert [name for name, _ in seen] == ["early", "late", "end"]
    assert seen[0][1] == pytest.approx(0.5)
    assert seen[2][1] == 10_000


def test_who_waits_for_nothing_is_found() -> None:
    async def main(loop: VirtualLoop) -> None:
        await loop.create_future()

    with pytest.raises(Deadlock):
        run(main)


def test_who_never_ends_is_found() -> None:
    async def waits(loop: VirtualLoop) -> None:
        while True:
            await asyncio.sleep(1)

    async def spins(loop: VirtualLoop) -> None:
        while True:
            await asyncio.sleep(0)

    with pytest.raises(OutOfTime):
        run(waits, limit_s=100)
    with pytest.raises(Livelock):
        run(spins)


def test_time_passes_even_where_a_wait_is_rounded_away() -> None:
    async def main(loop: VirtualLoop) -> float:
        await asyncio.sleep(1_000)
        deadline = loop.time() + 1e-12
        while loop.time() <= deadline:
            await asyncio.sleep(deadline - loop.time())
        return loop.time()

    assert run(main) > 1_000


def test_a_killed_process_runs_nothing_any_more() -> None:
    seen: list[str] = []

    async def work(name: str) -> None:
        try:
            seen.append(f"{name} begins")
            await asyncio.sleep(5)
            seen.append(f"{name} goes on")
        finally:
            seen.append(f"{name} cleans up")

    async def main(loop: VirtualLoop) -> None:
        victim, other = Process(loop, "victim"), Process(loop, "other")
        victim.spawn(work("victim"))
        other.spawn(work("other"))
        await asyncio.sleep(1)
        victim.kill()
        await asyncio.sleep(10)

    run(main)
    before_collection = [text for text in seen if text != "victim cleans up"]
    assert before_collection == ["victim begins", "other begins", "other goes on", "other cleans up"]
    assert "victim goes on" not in seen


def test_children_belong_to_the_process_that_made_them() -> None:
    seen: list[str] = []

    async def child() -> None:
        await asyncio.sleep(2)
        seen.append("child")

    async def parent() -> None:
        asyncio.get_running_loop().create_task(child())
        asyncio.get_running_loop().call_later(2, lambda: seen.append("timer"))
        await asyncio.sleep(10)

    async def main(loop: VirtualLoop) -> None:
        process = Process(loop, "parent")
        process.spawn(parent())
        await asyncio.sleep(1)
        process.kill()
        await asyncio.sleep(5)

    run(main)
    assert seen == []


def test_a_paused_process_does_everything_later() -> None:
    seen: list[float] = []

    async def tick(loop: VirtualLoop) -> None:
        for _ in range(3):
            await asyncio.sleep(1)
            seen.append(round(loop.time(), 3))

    async def main(loop: VirtualLoop) -> None:
        process = Process(loop, "ticker")
        process.spawn(tick(loop))
        await asyncio.sleep(1.5)
        process.pause()
        await asyncio.sleep(10)
        process.resume()
        await asyncio.sleep(5)

    run(main)
    assert seen == [1.0, 11.5, 12.5]


def test_a_seed_orders_what_is_due_at_once() -> None:
    def order(seed: int) -> list[int]:
        seen: list[int] = []

        async def main(loop: VirtualLoop) -> None:
            for number in range(20):
                loop.call_at(1.0, seen.append, number)
            await asyncio.sleep(2)

        run(main, rng=random.Random(seed))
        return seen

    assert order(1) == order(1)
    assert order(1) != order(2)
    assert sorted(order(2)) == list(range(20))


def test_jobs_of_a_pool_take_turns_and_time() -> None:
    async def main(loop: VirtualLoop) -> list[tuple[int, float]]:
        pool = SimThreads(loop, lambda: 2.0).pool("disk")
        seen: list[tuple[int, float]] = []

        def job(number: int) -> None:
            seen.append((number, round(loop.time(), 3)))

        await asyncio.gather(*(loop.run_in_executor(pool, job, number) for number in range(3)))
        return seen

    assert run(main) == [(0, 2.0), (1, 4.0), (2, 6.0)]


def test_a_failing_job_fails_its_caller_only() -> None:
    def fail() -> None:
        raise OSError("no")

    async def main(loop: VirtualLoop) -> str:
        pool = SimThreads(loop, lambda: 1.0).pool("disk")
        with pytest.raises(OSError, match="no"):
            await loop.run_in_executor(pool, fail)
        return await loop.run_in_executor(pool, lambda: "yes")

    assert run(main) == "yes"


def test_errors_nobody_caught_are_kept() -> None:
    loop = VirtualLoop()

    async def main(loop: VirtualLoop) -> None:
        loop.call_soon(lambda: 1 // 0)
        await asyncio.sleep(1)

    with no_collections():
        simulate(main, loop)
    assert [type(context["exception"]) for context in loop.failures] == [ZeroDivisionError]
