"""Every trace in traces/*.txt gives the output that stands in it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from tests.unit.operator.trace_harness import Trace

TRACES = sorted((Path(__file__).parent / "traces").glob("*.txt"))


def parse(text: str) -> list[tuple[list[str], list[str]]]:
    """Return (commands with comments, expected output) of each block."""
    blocks = []
    for block in text.strip("\n").split("\n\n"):
        commands, _, expected = block.partition("\n----")
        blocks.append((commands.splitlines(), expected.strip("\n").splitlines()))
    return blocks


async def play(blocks: list[tuple[list[str], list[str]]]) -> list[list[str]]:
    trace = Trace()
    results = []
    try:
        for commands, _ in blocks:
            trace.output = []
            for command in commands:
                if command.strip() and not command.startswith("#"):
                    await trace.run(command)
            results.append(trace.output)
    finally:
        await trace.store.close()
    return results


@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.stem)
def test_trace(path: Path) -> None:
    blocks = parse(path.read_text())
    results = asyncio.run(play(blocks))
    if os.environ.get("REWRITE_TRACES"):
        written = [
            "\n".join([*commands, "----", *found])
            for (commands, _), found in zip(blocks, results, strict=True)
        ]
        path.write_text("\n\n".join(written) + "\n")
        return
    for (commands, expected), found in zip(blocks, results, strict=True):
        assert found == expected, f"after {commands}"


def test_there_are_traces() -> None:
    assert len(TRACES) >= 8
