"""A cluster whose volumes and store are all lost comes back from its bucket: see `restore_run`."""

from __future__ import annotations

from pathlib import Path

from tests.crash.restore_run import run


def test_a_bucket_alone_brings_a_cluster_back(tmp_path: Path) -> None:
    outcome = run(tmp_path, mb=24)
    assert not outcome.findings, str(outcome)
    assert len(outcome.ends) == 3
    assert all(end >= outcome.written[number] // 2 for number, end in outcome.ends.items())
