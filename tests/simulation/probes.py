"""Looks inside the brokers while a schedule runs: who leads in which epoch, what is cut off, whether replicas agree.

Installed around one run by wrapping methods of `Partition`; nothing of the product's behaviour changes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from tests.simulation.loop import current_process

from strandline_broker.errors import KafkaError
from strandline_broker.replica.partition import Partition
from strandline_broker.server.volume import Volume
from strandline_broker.wire.batch import iter_batches
from strandline_broker.wire.errors import DecodeError

if TYPE_CHECKING:
    from tests.simulation.cluster import Cluster
    from tests.simulation.node import Node

PartitionId = tuple[bytes, int]


class Probes:
    """See the module."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.journal = cluster.journal
        # Who led in an epoch: (broker, life).
        self._led: dict[tuple[PartitionId, int], tuple[int, int]] = {}
        self._clean_lives: set[tuple[int, int]] = set()

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Watch all partitions of this process's brokers."""
        lead, cut, start_over = Partition.lead, Partition.cut, Partition.start_over
        mark_clean_stop = Volume.mark_clean_stop

        def watched_lead(partition: Partition, *args: Any, **kwargs: Any) -> None:
            before = partition.leadership
            lead(partition, *args, **kwargs)
            if partition.leadership is not before:
                self._leads(partition)

        def watched_cut(partition: Partition, offset: int) -> None:
            self._cuts(partition, offset)
            cut(partition, offset)

        def watched_start_over(partition: Partition, offset: int, *args: Any) -> None:
            self.journal.count("logs started over")
            start_over(partition, offset, *args)

        def watched_mark(volume: Volume) -> None:
            # From here on nothing is written any more, however the process ends: it has only its Lease to let go.
            mark_clean_stop(volume)
            node = self._here()
            if node is not None:
                self.stopped_clean(node)

        watched = {"lead": watched_lead, "cut": watched_cut, "start_over": watched_start_over}
        for name, method in watched.items():
            setattr(Partition, name, method)
        setattr(Volume, "mark_clean_stop", watched_mark)  # noqa: B010 - mypy would not have it assigned
        try:
            yield
        finally:
            setattr(Volume, "mark_clean_stop", mark_clean_stop)  # noqa: B010
            for name, original in {"lead": lead, "cut": cut, "start_over": start_over}.items():
                setattr(Partition, name, original)

    def stopped_clean(self, node: Node) -> None:
        """Note that the present life of a broker ends in a clean stop: the next one may resume its epochs."""
        self._clean_lives.add((node.id, node.lives))

    def _here(self) -> Node | None:
        process = current_process()
        return next((node for node in self.cluster.nodes if node.process is process), None)

    def _leads(self, partition: Partition) -> None:
        node = self._here()
        if node is None:
            return
        journal = self.journal
        name = f"{partition.topic}-{partition.index}"
        epoch = partition.leader_epoch
        journal.event(
            f"{node.host} leads {name} in epoch {epoch} from {partition.log.end_offset}, "
            f"high watermark {partition.high_watermark}"
        )
        journal.count("elections")
        key = ((partition.topic_id, partition.index), epoch)
        before = self._led.get(key)
        now = (node.id, node.lives)
        if before is not None and before != now:
            resumed = before[0] == node.id and all(
                (node.id, life) in self._clean_lives for life in range(before[1], node.lives)
            )
            if not resumed:
                journal.violation("two leaders in one epoch", f"{name} epoch {epoch}: {before} and {now}")
        self._led[key] = now
        self.compare(partition.topic_id, partition.index)

    def _cuts(self, partition: Partition, offset: int) -> None:
        node = self._here()
        journal = self.journal
        journal.count("truncations")
        name = f"{partition.topic}-{partition.index}"
        where = node.host if node is not None else "?"
        journal.event(f"{where} cuts {name} from {partition.log.end_offset} to {offset}")
        if offset < partition.high_watermark and partition.topic not in journal.unclean:
            journal.violation(
                "cut below the high watermark", f"{where} {name}: {partition.high_watermark} to {offset}"
            )

    # -- replicas agree ------------------------------------------------------------------------------------------------

    def compare_all(self) -> None:
        """Compare all replicas of all partitions."""
        seen: dict[PartitionId, None] = {}
        for node in self.cluster.nodes:
            if node.ready and node.broker is not None:
                for partition in node.broker.replicas:
                    seen[partition.topic_id, partition.index] = None
        for topic_id, index in seen:
            self.compare(topic_id, index, finally_=True)

    def compare(self, topic_id: bytes, index: int, *, finally_: bool = False) -> None:
        """Compare the replicas of one partition as far as any two of them say that it is committed.

        Where elections may be unclean they differ for a while.
        """
        self.journal.count("comparisons")
        replicas: list[tuple[Node, Partition]] = []
        for node in self.cluster.nodes:
            if not node.ready or node.broker is None:
                continue
            partition = node.broker.replicas.find(topic_id, index)
            if partition is not None and not partition.log.failed:
                if partition.topic in self.journal.unclean and not finally_:
                    return
                replicas.append((node, partition))
        contents: list[dict[int, bytes]] = []
        for node, partition in replicas:
            try:
                contents.append(read_batches(partition, partition.high_watermark))
            except (DecodeError, KafkaError) as error:
                self.journal.violation("unreadable log", f"{node.host} {partition!r}: {error}")
                contents.append({})
        for second in range(1, len(replicas)):
            for first in range(second):
                problem = _difference(contents[first], contents[second])
                if problem:
                    one, other = replicas[first], replicas[second]
                    self.journal.violation(
                        "replicas differ",
                        f"{one[1].topic}-{index}: {one[0].host} and {other[0].host} at {problem}",
                    )


def read_batches(partition: Partition, end: int) -> dict[int, bytes]:
    """Return the batches below `end` by base offset."""
    log = partition.log
    batches: dict[int, bytes] = {}
    offset = log.start_offset
    while offset < end:
        found = log.read(offset, 1 << 20, end, min_one_batch=True)
        if found is None:
            break
        data = found.read()
        for start, header in iter_batches(data):
            if start + header.size > len(data):
                break
            batches[header.base_offset] = data[start : start + header.size]
            offset = header.next_offset
    return batches


def _difference(first: dict[int, bytes], second: dict[int, bytes]) -> str:
    """Say where two logs differ in the range that both have."""
    if not first or not second:
        return ""
    low = max(min(first), min(second))
    high = min(max(first), max(second))
    for offset in sorted(first.keys() | second.keys()):
        if low <= offset <= high and first.get(offset) != second.get(offset):
            return f"offset {offset}"
    return ""
