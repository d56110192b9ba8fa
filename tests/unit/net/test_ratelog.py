"""Strangers cannot fill the disk with log lines."""

from __future__ import annotations

import logging

import pytest

from strandline_broker.net.ratelog import RateLimitedLog


def test_lines_are_limited_per_kind_and_the_rest_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    log = RateLimitedLog(logging.getLogger("test.net"), lambda: now, burst=3, lines_per_s=0.5)
    for number in range(100):
        log.log(logging.WARNING, "bad", f"line {number} with a %s")
    log.log(logging.WARNING, "other", "another kind")
    assert [record.getMessage() for record in caplog.records] == [
        "line 0 with a %s",
        "line 1 with a %s",
        "line 2 with a %s",
        "another kind",
    ]
    now = 1.9
    log.log(logging.WARNING, "bad", "too early")
    now = 4.0
    log.log(logging.WARNING, "bad", "later")
    assert caplog.messages[-1] == "later (98 more like this were not logged)"
    log.log(logging.DEBUG, "bad", "below the level")
    now = 1000.0
    for _ in range(10):
        log.log(logging.WARNING, "bad", "again")
    assert caplog.messages[5:] == ["again"] * 3


def test_tracebacks(caplog: pytest.LogCaptureFixture) -> None:
    log = RateLimitedLog(logging.getLogger("test.net"), lambda: 0.0)
    log.log(logging.ERROR, "bug", "it failed", error=RuntimeError("why"))
    assert "RuntimeError: why" in caplog.text
