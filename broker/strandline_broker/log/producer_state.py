"""What a log remembers of idempotent producers: epochs, the last five batches, and how to judge the next one.

Who uses it: `Log` at staging (client batches are judged), at follower appends and at recovery (batches are
only noted). Pure but for being mutable: entries are immutable tuples, so a failed write puts the old ones
back.

How a batch with producer id, epoch and first sequence is judged (Kafka `ProducerAppendInfo`):

| known producer | batch | outcome |
|----------------|-------|---------|
| no | any | taken, whatever its sequence: the producer may have expired |
| yes, same epoch | one of the last five batches again | duplicate: the original offsets are the answer |
| yes, same epoch | continues the last sequence (2**31-1 is followed by 0) | taken |
| yes, same epoch | anything else | OUT_OF_ORDER_SEQUENCE_NUMBER |
| yes, older epoch | any | INVALID_PRODUCER_EPOCH |
| yes, newer epoch | sequence 0 | taken, older batches are forgotten |
| yes, newer epoch | other sequence | OUT_OF_ORDER_SEQUENCE_NUMBER |
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from strandline_broker.errors import ErrorCode, KafkaError
from strandline_broker.wire.batch import MAX_SEQUENCE, NO_PRODUCER_EPOCH, NO_SEQUENCE, NO_TIMESTAMP

if TYPE_CHECKING:
    from strandline_broker.wire.batch import BatchHeader

BATCHES_KEPT = 5
DEFAULT_EXPIRATION_MS = 24 * 60 * 60 * 1000
DEFAULT_MAX_PRODUCERS = 100_000
NO_OFFSET = -1


class ProducerBatch(NamedTuple):
    """One of the last batches of a producer. `timestamp` is its largest, in milliseconds."""

    last_sequence: int
    last_offset: int
    offset_delta: int
    timestamp: int

    @property
    def first_sequence(self) -> int:
        """Sequence of the first record; sequences wrap at 2**31."""
        return (self.last_sequence - self.offset_delta) & MAX_SEQUENCE

    @property
    def first_offset(self) -> int:
        """Offset of the first record."""
        return self.last_offset - self.offset_delta


class ProducerEntry(NamedTuple):
    """State of one producer. `batches` is oldest first, at most five, all of `epoch`."""

    producer_id: int
    epoch: int = NO_PRODUCER_EPOCH
    batches: tuple[ProducerBatch, ...] = ()
    last_timestamp: int = NO_TIMESTAMP
    coordinator_epoch: int = -1
    txn_first_offset: int = NO_OFFSET

    @property
    def last_sequence(self) -> int:
        """Sequence of the last record, -1 if no batch of this epoch is known."""
        return self.batches[-1].last_sequence if self.batches else NO_SEQUENCE

    @property
    def last_offset(self) -> int:
        """Offset of the last record, -1 if no batch of this epoch is known."""
        return self.batches[-1].last_offset if self.batches else NO_OFFSET


class ProducerState:
    """The producers of one log. What `judge` and `note` change can be undone until `settle`.

    `expiration_ms` is `producer.id.expiration.ms`. Beyond `max_producers` the longest idle ones are
    forgotten, as if they had expired.
    """

    __slots__ = ("_entries", "_undo", "expiration_ms", "map_end_offset", "max_producers")

    def __init__(
        self, *, expiration_ms: int = DEFAULT_EXPIRATION_MS, max_producers: int = DEFAULT_MAX_PRODUCERS
    ) -> None:
        self._entries: dict[int, ProducerEntry] = {}
        self._undo: dict[int, ProducerEntry | None] = {}
        self.expiration_ms = expiration_ms
        self.max_producers = max_producers
        self.map_end_offset = 0
        """The offset up to which the log has been taken note of, for snapshots."""

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[ProducerEntry]:
        return iter(self._entries.values())

    def get(self, producer_id: int) -> ProducerEntry | None:
        """Return what is known of a producer."""
        return self._entries.get(producer_id)

    def judge(
        self, producer_id: int, epoch: int, first_sequence: int, offset_delta: int
    ) -> ProducerBatch | None:
        """Return the earlier batch that this one repeats, or None if it may be appended.

        Raises KafkaError INVALID_PRODUCER_EPOCH or OUT_OF_ORDER_SEQUENCE_NUMBER.
        """
        entry = self._entries.get(producer_id)
        if entry is None:
            return None
        known = entry[1]
        if epoch == known:
            batches = entry[2]
            expected = (batches[-1][0] + 1) & MAX_SEQUENCE if batches else 0
            if first_sequence == expected:
                return None
            last_sequence = (first_sequence + offset_delta) & MAX_SEQUENCE
            for batch in batches:
                if batch.last_sequence == last_sequence and batch.first_sequence == first_sequence:
                    return batch
            raise KafkaError(
                ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER,
                f"producer {producer_id}: sequence {first_sequence} where {expected} was expected",
            )
        if epoch < known:
            raise KafkaError(
                ErrorCode.INVALID_PRODUCER_EPOCH,
                f"producer {producer_id}: epoch {epoch} is older than {known}, the last seen",
            )
        if first_sequence != 0 and known != NO_PRODUCER_EPOCH:
            raise KafkaError(
                ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER,
                f"producer {producer_id}: epoch {epoch} must start with sequence 0, not {first_sequence}",
            )
        return None

    def note(
        self,
        producer_id: int,
        epoch: int,
        first_sequence: int,
        offset_delta: int,
        last_offset: int,
        timestamp: int,
        *,
        transactional: bool = False,
    ) -> None:
        """Take note of an appended (or staged) data batch."""
        entry = self._entries.get(producer_id)
        if producer_id not in self._undo:
            self._undo[producer_id] = entry
        last_sequence = (first_sequence + offset_delta) & MAX_SEQUENCE if first_sequence >= 0 else NO_SEQUENCE
        batch = ProducerBatch(last_sequence, last_offset, offset_delta, timestamp)
        if entry is None:
            first = last_offset - offset_delta if transactional else NO_OFFSET
            self._entries[producer_id] = ProducerEntry(producer_id, epoch, (batch,), timestamp, -1, first)
            if len(self._entries) > self.max_producers:
                self._forget_idle()
            return
        first = entry.txn_first_offset
        if transactional and first == NO_OFFSET:
            first = last_offset - offset_delta
        kept = (*entry[2][1 - BATCHES_KEPT :], batch) if entry[1] == epoch else (batch,)
        self._entries[producer_id] = ProducerEntry(producer_id, epoch, kept, timestamp, entry[4], first)

    def note_header(self, header: BatchHeader) -> None:
        """Take note of a batch that is in the log (replication, recovery).

        Control batches go to `note_marker`.
        """
        if header.producer_id >= 0 and not header.is_control:
            self.note(
                header.producer_id,
                header.producer_epoch,
                header.base_sequence,
                header.last_offset_delta,
                header.base_offset + header.last_offset_delta,
                header.max_timestamp,
                transactional=header.is_transactional,
            )

    def note_marker(self, producer_id: int, epoch: int, coordinator_epoch: int, timestamp: int) -> None:
        """Take note of the marker that ends a transaction."""
        entry = self._entries.get(producer_id)
        if producer_id not in self._undo:
            self._undo[producer_id] = entry
        batches = entry.batches if entry is not None and entry.epoch == epoch else ()
        self._entries[producer_id] = ProducerEntry(
            producer_id, epoch, batches, timestamp, coordinator_epoch, NO_OFFSET
        )

    def settle(self) -> None:
        """Make all changes final: the batches are written."""
        if self._undo:
            self._undo.clear()

    def undo(self) -> None:
        """Take back all changes since the last `settle`: the batches were not written."""
        for producer_id, entry in self._undo.items():
            if entry is None:
                self._entries.pop(producer_id, None)
            else:
                self._entries[producer_id] = entry
        self._undo.clear()

    def expire(self, now_ms: int) -> int:
        """Forget producers that were idle for `expiration_ms` and have no open transaction.

        Return how many.
        """
        limit = now_ms - self.expiration_ms
        expired = [
            entry.producer_id
            for entry in self._entries.values()
            if entry.last_timestamp <= limit and entry.txn_first_offset == NO_OFFSET
        ]
        for producer_id in expired:
            if producer_id not in self._undo:
                del self._entries[producer_id]
        return len(expired)

    def _forget_idle(self) -> None:
        idle = sorted(
            (entry for entry in self._entries.values() if entry.txn_first_offset == NO_OFFSET),
            key=lambda entry: entry.last_timestamp,
        )
        for entry in idle[: max(1, self.max_producers // 8)]:
            if entry.producer_id not in self._undo:
                del self._entries[entry.producer_id]

    def load(self, entries: Iterable[ProducerEntry], map_end_offset: int, now_ms: int) -> None:
        """Start over from a snapshot; expired producers are left out."""
        self._undo.clear()
        self._entries = {entry.producer_id: entry for entry in entries}
        self.map_end_offset = map_end_offset
        self.expire(now_ms)

    def first_unstable_offset(self) -> int | None:
        """Return the first offset of the oldest open transaction, or None."""
        offsets = [
            entry.txn_first_offset for entry in self._entries.values() if entry.txn_first_offset != NO_OFFSET
        ]
        return min(offsets, default=None)
