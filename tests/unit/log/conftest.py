"""Fixtures of the log's tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.unit.log.support import NOW_MS, FailingDisk

from strandline_broker.log.config import LogConfig
from strandline_broker.log.log import Log

OpenLog = Callable[..., Log]


@pytest.fixture
def disk(tmp_path: Path) -> FailingDisk:
    return FailingDisk(tmp_path)


@pytest.fixture
def open_log(disk: FailingDisk) -> OpenLog:
    def open_it(config: LogConfig | None = None, **arguments: object) -> Log:
        settings: dict[str, object] = {"now_ms": NOW_MS, "clean": False, **arguments}
        return Log.open(disk, "topic-0", config or LogConfig(), **settings)  # type: ignore[arg-type]

    return open_it
