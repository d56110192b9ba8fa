"""Runs `traces/*.txt`; see `trace` for their language."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.unit.group.trace import Trace

_FILES = sorted((Path(__file__).parent / "traces").glob("*.txt"))


@pytest.mark.parametrize("path", _FILES, ids=lambda path: path.stem)
def test_trace(path: Path) -> None:
    text = path.read_text()
    blocks = [_run(block, trace) for trace in [Trace()] for block in text.strip("\n").split("\n\n")]
    if os.environ.get("STRANDLINE_REWRITE_TRACES"):
        path.write_text("\n\n".join(blocks) + "\n")
    else:
        for came, wanted in zip(blocks, text.strip("\n").split("\n\n"), strict=True):
            assert came == wanted


def _run(block: str, trace: Trace) -> str:
    head = block.split("\n---")[0].split("\n")
    came = [line for command in head if not command.startswith("#") for line in trace.run(command)]
    if all(command.startswith("#") for command in head):
        return block
    return "\n".join([*head, "---", *came])


def test_there_are_traces() -> None:
    assert len(_FILES) >= 10
