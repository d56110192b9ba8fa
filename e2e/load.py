"""Clients outside the cluster that write and read while something breaks, and the judgement of all they saw.

The producers are idempotent, with `acks=all`; the history and its checker are those of the crash tests. A delivery that
fails finally, a client that stays stuck and any contradiction in the history fail the test.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable
from types import TracebackType

from tests.crash.ack_watch import AckWatch
from tests.crash.history import check
from tests.crash.kill_load import Load, Plan, create_topic_of

from e2e.demo import Demo
from e2e.kube import wait_for

PARTITIONS = 6
_RECOVERY_S = 120.0


class Underway:
    """Two producers and a reader of a topic of its own, `topic`, from `with` to the end of the block.

    Times are seconds of the monotonic clock. `check` is called at the end of a block that did not fail.
    """

    def __init__(self, demo: Demo, *, records_per_s: int = 100) -> None:
        self.partitions = PARTITIONS
        self.topic = f"load-{uuid.uuid4().hex[:8]}"
        bootstrap = demo.outside()
        plan = Plan(
            partitions=PARTITIONS,
            producers=2,
            records_per_s=records_per_s,
            topic=self.topic,
            replicas=3,
            min_isr=2,
        )
        create_topic_of(bootstrap, plan)
        self._load = Load(bootstrap, plan)
        self._watch = AckWatch(self._load.history)
        self.summary = ""

    def __enter__(self) -> Underway:
        self._load.start()
        try:
            self.recovery(range(PARTITIONS), time.monotonic())
        except BaseException:
            self._load.abandon()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._load.abandon()
            return
        self._check()

    def recovery(self, partitions: Iterable[int], since: float, timeout_s: float = _RECOVERY_S) -> float:
        """Wait until each partition has an acknowledged record that was sent after `since`; return when the last had."""
        wanted = list(partitions)

        def look() -> float | None:
            self._watch.update()
            return self._watch.recovered_at(wanted, since)

        found = wait_for(look, timeout_s, f"partitions {wanted} of {self.topic} to take records", 0.02)
        assert found is not None
        return found

    def longest_gap(self, since: float, until: float, partitions: Iterable[int] = range(PARTITIONS)) -> float:
        """Return the longest time between two acknowledgements in a partition, in seconds."""
        self._watch.update()
        return self._watch.longest_gap(partitions, since, until)

    def _check(self) -> None:
        load = self._load
        load.finish()
        load.read_everything()
        verdict = check(load.history)
        failed = [text for text in load.client_errors if text.startswith("delivery failed")]
        self.summary = f"{verdict.acked:,} acknowledged records, {verdict}"
        assert not load.findings, load.findings
        assert not failed, load.client_errors
        assert verdict.ok, str(verdict)
        assert verdict.acked == verdict.sent
