from __future__ import annotations

from pathlib import Path

import pytest

from strandline_broker.api.handlers import build_registry
from strandline_broker.wire.api_keys import ApiKey
from strandline_broker.wire.compatibility import Handler, read_handlers, render
from strandline_broker.wire.registry import KAFKA_RANGES

ROOT = Path(__file__).resolve().parents[3]


def test_the_page_is_up_to_date() -> None:
    page = (ROOT / "docs" / "compatibility.md").read_text(encoding="utf-8")
    assert page == render(read_handlers()), "run: make docs"


def test_the_docstrings_of_the_handlers_say_what_the_registry_serves() -> None:
    documented = [(h.key, h.min_version, h.max_version) for h in read_handlers()]
    assert documented == [(r.key, r.min_version, r.max_version) for r in build_registry().ranges]


def test_every_handler_states_its_differences() -> None:
    assert [handler.key.display_name for handler in read_handlers() if not handler.differences] == []


def test_the_table_has_every_api_of_kafka() -> None:
    page = render([Handler(ApiKey.FETCH, 4, 18, "none known.", "")])
    assert "| 1 | Fetch | 4-18 | 4-18 |" in page
    assert "| 47 | OffsetDelete | - | 0 |" in page
    assert page.count("\n| ") == len(KAFKA_RANGES) + 1
    assert page.endswith("### Fetch\n\nNone known.\n")


def write(folder: Path, name: str, title: str) -> None:
    text = f'"""{title}\n\nDifferences from Kafka: one,\ntwo.\n\nVersion notes: v2 flexible.\n"""\n'
    (folder / name).write_text(text, encoding="utf-8")


def test_docstrings_are_read_as_they_are_wrapped(tmp_path: Path) -> None:
    write(tmp_path, "delete_records.py", "DeleteRecords (key 21), versions 0-2.")
    write(tmp_path, "offset_delete.py", "OffsetDelete (key 47), version 0.")
    write(tmp_path, "support.py", "What handlers share.")
    assert read_handlers(tmp_path) == [
        Handler(ApiKey.DELETE_RECORDS, 0, 2, "one, two.", "v2 flexible."),
        Handler(ApiKey.OFFSET_DELETE, 0, 0, "one, two.", "v2 flexible."),
    ]


@pytest.mark.parametrize(
    "titles",
    [["Fetch (key 2), versions 1-11."], ["Fetch (key 1), versions 4-18."] * 2, ["Fetch (key 4), version 0."]],
)
def test_docstrings_that_contradict_are_refused(tmp_path: Path, titles: list[str]) -> None:
    for number, title in enumerate(titles):
        write(tmp_path, f"handler_{number}.py", title)
    with pytest.raises(ValueError, match=r"Fetch|ApiKey"):
        read_handlers(tmp_path)
