from __future__ import annotations

from pathlib import Path

from strandline_broker.server.config_reference import render

PAGE = Path(__file__).resolve().parents[3] / "docs" / "configuration.md"


def test_the_page_is_what_make_docs_writes() -> None:
    assert PAGE.read_text(encoding="utf-8") == render(), "run `make docs`"


def test_every_key_says_what_it_means() -> None:
    rows = [line for line in render().splitlines() if line.startswith("| `")]
    assert len(rows) > 30
    assert all(len(row.split(" | ")[-1]) > 15 for row in rows)
