"""The Cluster's status says how the bucket of three brokers is, and Events tell when that changes."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.integration.replicated import Trio, eventually, trio
from tests.integration.support import run
from tests.integration.test_tiering import Away, started, write

from strandline_broker.cluster.model import CLUSTER
from strandline_broker.server import bucket_watch
from strandline_operator.controller import pacing
from strandline_operator.controller.actions import Notice
from strandline_tiered.faulty_store import FaultyStore
from strandline_tiered.memory_store import MemoryStore

Shown = dict[str, tuple[str, str, str]]


async def conditions(three: Trio) -> Shown:
    """Return (status, reason, message) of the Cluster's conditions by type."""
    cluster = await three.made.store.get(CLUSTER, "test")
    listed = (cluster.get("status") or {}).get("conditions") or ()
    return {one["type"]: (one["status"], one["reason"], one["message"]) for one in listed}


async def with_tiering(three: Trio) -> None:
    cluster = await three.made.store.get(CLUSTER, "test")
    await three.made.store.patch_if(
        CLUSTER,
        "test",
        uid=cluster["metadata"]["uid"],
        tests=[],
        operations=[{"op": "add", "path": "/spec/tiering", "value": {"bucket": "b"}}],
    )


def test_a_bucket_that_goes_away_and_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bucket_watch, "LOOK_INTERVAL_S", 0.02)
    monkeypatch.setattr(bucket_watch, "QUIET_S", 0.2)
    # Which brokers are named changes no condition, and would wait ten seconds.
    monkeypatch.setattr(pacing, "STATUS_INTERVAL_S", 0.05)

    async def scenario() -> None:
        bucket = FaultyStore(MemoryStore())
        async with trio(tmp_path, bucket=bucket) as three:
            notices: list[Notice] = []
            three.made.controller._notify = notices.append
            await eventually(lambda: conditions(three), lambda shown: shown.get("Ready", ("",))[0] == "True")
            assert "TieringReachable" not in await conditions(three), "the Cluster has no tiering"
            await with_tiering(three)
            await started(three)
            await write(three, 0, 30)
            shown = await eventually(
                lambda: conditions(three),
                lambda shown: "brokers 0, 1 and 2" in shown.get("TieringReachable", ("", "", ""))[2],
            )
            assert shown["TieringReachable"][:2] == ("True", "BucketAnswers")
            assert "honours conditional writes" in shown["TieringReachable"][2]
            assert shown["TieringProtected"][:2] == ("True", "UploadsInTime")
            bucket.plan = Away()
            shown = await eventually(
                lambda: conditions(three),
                lambda shown: (
                    shown["TieringReachable"][0] == "False"
                    and "brokers 0, 1 and 2 cannot use the bucket since" in shown["TieringReachable"][2]
                ),
            )
            assert shown["TieringReachable"][1] == "Unavailable"
            assert shown["Ready"][0] == "True", "what is here is served"
            await write(three, 30, 60)
            bucket.plan = None
            await eventually(lambda: conditions(three), lambda shown: shown["TieringReachable"][0] == "True")
            assert [(one.reason, one.warning) for one in notices if one.reason.startswith("Bucket")] == [
                ("BucketUnreachable", True),
                ("BucketReachable", False),
            ]

    run(scenario())
