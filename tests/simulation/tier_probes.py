"""Looks inside the brokers of a schedule that tiers: what replicas give up locally, and where logs begin.

Installed around one run, as `Probes` is. What is seen goes to the `Ledger`. One thing is changed: manifests spill their old
entries into pages after a few of them, not after a thousand.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from tests.simulation.loop import current_process
from tests.simulation.probes import read_batches

from strandline_broker.log import retention
from strandline_broker.log.names import parse_log_directory
from strandline_broker.replica import archiver
from strandline_broker.replica.partition import Partition
from strandline_broker.replica.tier import PartitionTier
from strandline_tiered.leadership import Context

if TYPE_CHECKING:
    from tests.simulation.cluster import Cluster
    from tests.simulation.journal import TopicPartition
    from tests.simulation.ledger import Ledger
    from tests.simulation.node import Node

    from strandline_broker.log.log import Log


TAIL_ENTRIES = 6
PAGE_ENTRIES = 4


class TierProbes:
    """See the module."""

    def __init__(self, cluster: Cluster, ledger: Ledger) -> None:
        self.cluster = cluster
        self.ledger = ledger
        ledger.on_truth = self._compare

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Watch all logs of this process's brokers."""
        remove_first, ask = retention._remove_first, PartitionTier.ask_log_start
        authorise = PartitionTier.authorise
        raise_start, start_over, lead = Partition.raise_log_start, Partition.start_over, Partition.lead

        def watched_remove_first(log: Log, count: int) -> int:
            self._gives_up(log, log.segments[count].base_offset)
            return remove_first(log, count)

        def watched_ask(tier: PartitionTier, offset: int) -> None:
            self._asks(tier, offset)
            ask(tier, offset)

        def watched_raise_start(partition: Partition, offset: int) -> None:
            self._raises(partition, offset)
            raise_start(partition, offset)

        def watched_start_over(partition: Partition, offset: int, *args: Any) -> None:
            start_over(partition, offset, *args)
            self.ledger.journal.count("replicas begun in the middle", offset > 0)
            self.ledger.begins_here(_name(partition), offset, self._who())

        def watched_lead(partition: Partition, *args: Any, **kwargs: Any) -> None:
            before = partition.leadership
            lead(partition, *args, **kwargs)
            if partition.leadership is not before:
                self.check(_name(partition))

        def watched_authorise(tier: PartitionTier, offset: int, segment_key: str) -> None:
            name = parse_log_directory(tier._log.directory.rpartition("/")[2])
            if name is not None and name[0] in self.ledger.journal.unclean:
                self.ledger.releases(name, offset)
            authorise(tier, offset, segment_key)

        few_entries = partial(Context, tail_entries=TAIL_ENTRIES, page_entries=PAGE_ENTRIES)
        wrapped: list[tuple[Any, str, Any, Any]] = [
            (archiver, "Context", Context, few_entries),
            (retention, "_remove_first", remove_first, watched_remove_first),
            (PartitionTier, "ask_log_start", ask, watched_ask),
            (PartitionTier, "authorise", authorise, watched_authorise),
            (Partition, "raise_log_start", raise_start, watched_raise_start),
            (Partition, "start_over", start_over, watched_start_over),
            (Partition, "lead", lead, watched_lead),
        ]
        for owner, name, _, watched in wrapped:
            setattr(owner, name, watched)
        try:
            yield
        finally:
            for owner, name, original, _ in wrapped:
                setattr(owner, name, original)

    # -- what replicas do ----------------------------------------------------------------------------------------------

    def _here(self) -> Node | None:
        process = current_process()
        return next((node for node in self.cluster.nodes if node.process is process), None)

    def _who(self) -> str:
        node = self._here()
        return node.host if node is not None else "?"

    def _gives_up(self, log: Log, offset: int) -> None:
        partition = parse_log_directory(log.directory.rpartition("/")[2])
        if partition is None or log.tier is None:
            return
        journal = self.ledger.journal
        journal.count("local deletions")
        journal.event(f"{self._who()} gives up {partition[0]}-{partition[1]} below {offset}")
        self.ledger.begins_here(partition, offset, self._who())

    def _asks(self, tier: PartitionTier, offset: int) -> None:
        log, node = tier._log, self._here()
        partition = parse_log_directory(log.directory.rpartition("/")[2])
        if partition is None or node is None or offset <= self.ledger.journal.log_starts[partition]:
            return
        found = node.broker.replicas.find(*partition) if node.broker is not None else None
        if found is not None:
            self.note_local(found)
            uncommitted = sum(
                len(batch)
                for base, batch in read_batches(found, log.end_offset).items()
                if base >= found.high_watermark
            )
            self.ledger.asks_for_log_start(partition, offset, log.config, node.clock.now_ms(), uncommitted)

    def note_local(self, partition: Partition) -> None:
        """Let the ledger know what a leader has here: it may be deleted, and it may count."""
        for batch in read_batches(partition, partition.high_watermark).values():
            self.ledger.note(_name(partition), batch, f"the log of {self._who()}")

    def _raises(self, partition: Partition, offset: int) -> None:
        if partition.tier is None or offset <= partition.log_start_offset:
            return
        name = _name(partition)
        if partition.is_leader:
            self.note_local(partition)
            self.ledger.journal.count("log starts raised")
            self.ledger.journal.event(f"{self._who()} lets {name[0]}-{name[1]} begin at {offset}")
        self.ledger.raises_log_start(name, offset, self._who())

    # -- all replicas --------------------------------------------------------------------------------------------------

    def check(self, name: TopicPartition) -> None:
        """Check that what the replicas of a partition lack is in the bucket."""
        self.ledger.entries(name)
        self._compare(name)

    def _compare(self, name: TopicPartition) -> None:
        for node in self.cluster.nodes:
            if node.ready and node.broker is not None:
                partition = node.broker.replicas.find(*name)
                if partition is not None and partition.tier is not None and not partition.log.failed:
                    self.ledger.begins_here(name, partition.log.start_offset, node.host)


def _name(partition: Partition) -> TopicPartition:
    return partition.topic, partition.index
