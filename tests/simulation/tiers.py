"""What a schedule that tiers has besides: a bucket, who watches it, who reads old records, and what there is in the end."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from tests.crash.history import Read
from tests.simulation.bucket import Bucket
from tests.simulation.cold_reader import ColdReader
from tests.simulation.journal import parse_value
from tests.simulation.ledger import Ledger
from tests.simulation.probes import read_batches
from tests.simulation.tier_probes import TierProbes

from strandline_broker.wire.batch import iter_records
from strandline_tiered.leadership import Phase

if TYPE_CHECKING:
    from tests.simulation.client import SimClient
    from tests.simulation.cluster import Cluster
    from tests.simulation.journal import TopicPartition

    from strandline_broker.replica.archiver import Archiver
    from strandline_broker.replica.partition import Partition

_JUMP_CHANCE = 0.04


class Tiers:
    """See the module. Made before any broker starts."""

    def __init__(self, cluster: Cluster, rng: random.Random) -> None:
        self.cluster = cluster
        self.journal = cluster.journal
        cluster.bucket = Bucket(cluster.loop, cluster.network.links, rng, cluster.journal)
        self.ledger = Ledger(cluster.journal, cluster.bucket)
        self.probes = TierProbes(cluster, self.ledger)

    def cold_reader(self, client: SimClient, partitions: list[TopicPartition]) -> ColdReader:
        """Return a consumer of old records."""
        return ColdReader(client, partitions, jump_chance=_JUMP_CHANCE, epoch_of=self._epoch_of)

    def _epoch_of(self, partition: TopicPartition) -> int:
        topic, index = partition
        for slice_ in self.cluster.partition_sets():
            if slice_.topic_name == topic:
                return slice_.partitions[index].leader_epoch
        return -1

    def holds(self, partition: TopicPartition, value: bytes) -> bool:
        """Whether a record is known to be committed, wherever it is by now."""
        number = self.journal.number_of(partition)
        return any(place[0] == number and known == value for place, known in self.journal.seen.items())

    # -- the end -------------------------------------------------------------------------------------------------------

    def missing(self, leader: Partition, reader: ColdReader) -> list[str]:
        """Return what keeps a partition's tiers from being well, and its reader from being done."""
        name = (leader.topic, leader.index)
        position = reader.follower.positions.get(name)
        missing = []
        if position is not None and (name not in reader.finishing or position.offset < leader.high_watermark):
            missing.append(
                f"{reader.client.name} is at {position.offset} of {leader.high_watermark} in {name}"
            )
        archiver = self._archiver(leader)
        if archiver is None:
            return [*missing, f"nobody tiers {name}"] if leader.tier is not None else missing
        state = archiver.state
        if state.phase is not Phase.READY or state.problem:
            missing.append(f"the tiering of {name} is {state.phase.value}: {state.problem}")
        elif state.may_write and state.published is not None:
            sealed = leader.log.active.base_offset
            if leader.high_watermark >= sealed > state.published.end_offset:
                missing.append(f"{name} is uploaded to {state.published.end_offset} of {sealed}")
        return missing

    def _archiver(self, leader: Partition) -> Archiver | None:
        for node in self.cluster.nodes:
            tiering = node.broker.tiering if node.broker is not None else None
            for archiver in tiering or ():
                if archiver.partition is leader:
                    return archiver
        return None

    def everything(self, leader: Partition) -> list[Read]:
        """Return all records that ever were committed: those that were deleted by right, the bucket's, and the local ones.

        Looks at the same time whether the tiers fit together.
        """
        name = (leader.topic, leader.index)
        number = self.journal.number_of(name)
        self.probes.check(name)
        if leader.topic not in self.journal.unclean:
            self.probes.note_local(leader)
        truth = self.ledger.truth(name)
        local_start = leader.log.start_offset
        # A manifest that is not looked behind yet may begin later than its leader says.
        log_start = max(leader.log_start_offset, truth.log_start if truth is not None else 0)
        if log_start < self.journal.deleted[name]:
            self.journal.violation(
                "deletion forgotten",
                f"{name} begins at {log_start}, {self.journal.deleted[name]} was answered",
            )
        seen = self.journal.seen
        values = {offset: seen.get((number, offset)) for offset in range(log_start)}
        in_bucket = self.ledger.read(name, log_start, leader.high_watermark)
        values |= {offset: value for offset, value in in_bucket.items() if offset < local_start}
        for batch in read_batches(leader, leader.high_watermark).values():
            for record in iter_records(batch):
                if record.offset >= log_start:
                    values[record.offset] = record.value or b""
        for offset, stored in in_bucket.items():
            if values.get(offset) != stored:
                self.journal.violation(
                    "tiers differ", f"{name} offset {offset}: {stored!r}, here {values.get(offset)!r}"
                )
        holes = [offset for offset in range(log_start, leader.high_watermark) if values.get(offset) is None]
        if holes:
            self.journal.violation("hole", f"{name} offset {holes[0]} is in no tier")
        self.ledger.holds_released(name, {k: v for k, v in values.items() if v is not None})
        for offset, value in values.items():
            if value is not None and seen.get((number, offset), value) != value:
                self.journal.violation("one offset, two values", f"{name} offset {offset} in the end")
        return [
            Read(number, offset, parse_value(value)) for offset, value in values.items() if value is not None
        ]
