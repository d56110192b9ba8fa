"""Options of the crash tests."""

from __future__ import annotations

import os

import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "crash: long runs with real processes; only with -m crash")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "crash" in str(config.getoption("-m")) or os.environ.get("STRANDLINE_CRASH"):
        return
    for item in items:
        if item.get_closest_marker("crash"):
            item.add_marker(pytest.mark.skip(reason="long: run with -m crash"))
