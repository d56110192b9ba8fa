from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from strandline_broker.server.placement import Placement, PlacementFile, parse_placement

FULL = '{"rack": "zone-1", "advertised": {"external": {"host": "203.0.113.7", "port": 31234}}}'


async def at_once(work: Callable[[], object]) -> object:
    return work()


def test_a_placement_names_rack_and_addresses() -> None:
    assert parse_placement(FULL) == Placement("zone-1", {"EXTERNAL": ("203.0.113.7", 31234)})  # type: ignore[dict-item]
    assert parse_placement("{}") == Placement()
    assert parse_placement('{"rack": ""}') == Placement()


@pytest.mark.parametrize(
    "text",
    [
        "no json",
        "[]",
        '{"rack": 7}',
        '{"advertised": []}',
        '{"advertised": {"A": {"host": "h"}}}',
        '{"advertised": {"A": {"host": "", "port": 1}}}',
        '{"advertised": {"A": {"host": "h", "port": 65536}}}',
        '{"advertised": {"A": {"host": "h", "port": "9"}}}',
    ],
)
def test_what_is_no_placement_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a"):
        parse_placement(text)


def test_the_file_is_followed_and_a_bad_one_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "placement"
    file = PlacementFile(str(path), at_once)

    def check(text: str) -> bool:
        path.write_text(text)
        return asyncio.run(file.check())

    assert not asyncio.run(file.check())
    assert not check("")
    assert check(FULL)
    assert file.current.rack == "zone-1"
    assert not check(FULL + "\n")
    assert not check("{")
    assert file.current.rack == "zone-1"
    assert check('{"rack": "zone-2"}')
    assert file.current == Placement("zone-2")


def test_a_start_waits_for_the_file_but_not_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "placement"
    looks = 0

    async def appears_at_the_third_look(work: Callable[[], object]) -> object:
        nonlocal looks
        looks += 1
        if looks == 3:
            path.write_text(FULL)
        return work()

    file = PlacementFile(str(path), appears_at_the_third_look)
    asyncio.run(file.wait(30.0))
    assert (looks, file.current.rack) == (3, "zone-1")

    nothing = PlacementFile(str(tmp_path / "absent"), at_once)
    asyncio.run(nothing.wait(0.2))
    assert nothing.current == Placement()


def test_without_a_file_there_is_nothing_to_wait_for() -> None:
    file = PlacementFile(None, at_once)
    asyncio.run(file.wait(30.0))
    assert not asyncio.run(file.check())
