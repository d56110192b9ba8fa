"""What one log must hold after a crash, given what was written and acknowledged before it.

The model knows every batch that was ever handed to the log, which of them were acknowledged (durable by the log's own
word), and which producers are in the middle of what. `check` compares a reopened log with it, and takes over what it
finds: from then on that is the truth, and all of it counts as acknowledged, because the log claims it to be durable.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from strandline_broker.errors import ErrorCode, KafkaError
from strandline_broker.wire.batch import BatchHeader, Record, build_batch, crc_ok, iter_batches

if TYPE_CHECKING:
    from strandline_broker.log.log import Log

DEDUPLICATED_BATCHES = 5
_READ_BYTES = 1 << 20


class Violation(AssertionError):  # noqa: N818 # it names what was found
    """A log broke a promise."""


class Written(NamedTuple):
    """A batch as it lies in the log."""

    header: BatchHeader
    content: bytes


def demand(condition: object, message: str) -> None:
    """Raise Violation unless the condition holds."""
    if not condition:
        raise Violation(message)


def read_log(log: Log, upper_offset: int | None = None) -> list[Written]:
    """Read a log from its start in several fetches, as a consumer would."""
    end = log.end_offset if upper_offset is None else upper_offset
    found: list[Written] = []
    offset = log.start_offset
    while offset < end:
        part = log.read(offset, _READ_BYTES, end, min_one_batch=True)
        demand(part is not None, f"{log}: nothing to read at {offset}, the end is {end}")
        assert part is not None
        data = part.read()
        demand(len(data) == len(part), f"{log}: a read of {len(part)} bytes gave {len(data)}")
        before = offset
        for position, header in iter_batches(data):
            content = data[position : position + header.size]
            demand(crc_ok(memoryview(content)), f"{log}: wrong checksum at offset {header.base_offset}")
            demand(
                header.base_offset == offset
                or (not found and header.base_offset <= offset <= header.last_offset),
                f"{log}: batch {header.base_offset}..{header.last_offset} where {offset} comes next",
            )
            found.append(Written(header, content))
            offset = header.next_offset
        demand(offset > before, f"{log}: a read at {before} gave no whole batch")
    demand(offset == end, f"{log}: the last batch ends at {offset}, the log at {end}")
    return found


@dataclass(slots=True)
class ProducerModel:
    """An idempotent producer of this log."""

    producer_id: int
    epoch: int = 0
    next_sequence: int = 0


@dataclass(slots=True)
class LogModel:
    """Expectations of one log; see the module."""

    name: str
    batches: list[Written] = field(default_factory=list)
    attempted: dict[int, set[bytes]] = field(default_factory=lambda: defaultdict(set))
    acked_end: int = 0
    start_at_least: int = 0
    start_at_most: int = 0
    producers: dict[int, ProducerModel] = field(default_factory=dict)
    newest_epoch: int = -1
    refused_retries: int = 0

    @property
    def end_offset(self) -> int:
        """Where the next batch goes."""
        return self.batches[-1].header.next_offset if self.batches else self.start_at_most

    # ---- what happens to the log

    def attempt(self, batch: bytes, base_offset: int) -> None:
        """Take note that a batch is being written; it may or may not survive."""
        self.attempted[base_offset].add(bytes(batch))

    def committed(self, batches: list[bytes]) -> None:
        """Take note that batches were written."""
        for content in batches:
            ((_, header),) = iter_batches(content)
            self.batches.append(Written(header, bytes(content)))
            producer = self.producers.get(header.producer_id)
            if producer is not None:
                producer.next_sequence = header.last_sequence + 1

    def acknowledged(self, synced_end: int) -> None:
        """Take note that the log promised to keep everything below `synced_end`."""
        self.acked_end = max(self.acked_end, synced_end)

    def starting_at(self, offset: int, *, done: bool) -> None:
        """Take note that the log start is moving to `offset`, or has moved."""
        self.start_at_most = max(self.start_at_most, offset)
        if done:
            self.start_at_least = max(self.start_at_least, offset)

    def started_at(self, offset: int) -> None:
        """Take note that the log start is at `offset`, and will not move for now."""
        self.start_at_least = self.start_at_most = offset

    def truncated(self, offset: int) -> None:
        """Take note that everything from the batch that holds `offset` on is gone for good."""
        if offset >= self.end_offset:
            return  # nothing to cut, so nothing was synced: failed appends may still come back
        self.batches = [batch for batch in self.batches if batch.header.last_offset < offset]
        for base in [base for base in self.attempted if base >= self.end_offset]:
            del self.attempted[base]
        self.rewind_producers()

    # ---- what must be so

    def check(self, log: Log) -> None:
        """Compare a reopened log with the model, then take over what it holds."""
        self.check_bounds(log)
        found = read_log(log)
        truth = {batch.header.base_offset: batch.content for batch in self.batches}
        for header, content in found:
            base = header.base_offset
            if base < self.acked_end:
                demand(
                    truth.get(base) == content, f"{log}: the acknowledged batch at {base} is another one now"
                )
            else:
                demand(
                    content in self.attempted.get(base, ()), f"{log}: the batch at {base} was never written"
                )
        self._check_sequences(log, found)
        self.batches = found
        self.acknowledged(log.synced_end)
        self.start_at_least = self.start_at_most = log.start_offset
        for base in [base for base in self.attempted if base < log.end_offset]:
            del self.attempted[base]
        self._check_epochs(log)
        self.rewind_producers()
        demand(not log.verify(), f"{log}: {log.verify()}")
        demand(log.size_bytes >= sum(len(batch.content) for batch in found), f"{log}: size {log.size_bytes}")

    def check_live(self, log: Log) -> None:
        """Compare a log in use with the model."""
        demand(log.end_offset == self.end_offset, f"{log}: ends at {log.end_offset}, not {self.end_offset}")
        self.check_bounds(log)
        start = log.start_offset
        expected = [batch.content for batch in self.batches if batch.header.last_offset >= start]
        demand([batch.content for batch in read_log(log)] == expected, f"{log}: holds other batches")

    def check_bounds(self, log: Log) -> None:
        """The log reaches as far as it must and starts where it may."""
        demand(
            log.end_offset >= self.acked_end,
            f"{log}: ends at {log.end_offset}, acknowledged was {self.acked_end}",
        )
        demand(log.synced_end <= log.end_offset, f"{log}: synced beyond the end")
        demand(log.start_offset >= self.start_at_least, f"{log}: the start fell from {self.start_at_least}")
        demand(
            log.start_offset <= self.start_at_most,
            f"{log}: nobody moved the start beyond {self.start_at_most}",
        )

    def _check_sequences(self, log: Log, found: list[Written]) -> None:
        """Every producer's sequences follow each other: nothing twice, nothing skipped."""
        following: dict[tuple[int, int], int] = {}
        for header, _ in found:
            if header.has_producer_id:
                key = (header.producer_id, header.producer_epoch)
                expected = following.get(key, header.base_sequence)
                demand(
                    header.base_sequence == expected,
                    f"{log}: producer {key} has sequence {header.base_sequence} at {header.base_offset}, "
                    f"{expected} comes next",
                )
                following[key] = header.last_sequence + 1

    def _check_epochs(self, log: Log) -> None:
        """The log knows where each epoch ended."""
        epochs = sorted({batch.header.leader_epoch for batch in self.batches})
        for number, epoch in enumerate(epochs):
            if number + 1 < len(epochs):
                end = next(b.header.base_offset for b in self.batches if b.header.leader_epoch > epoch)
                got = log.epoch_end_offset(epoch)
                demand(
                    got[0] == epoch and got[1] <= end, f"{log}: epoch {epoch} ends at {got}, expected {end}"
                )
                last = max(b.header.next_offset for b in self.batches if b.header.leader_epoch == epoch)
                demand(got[1] >= last, f"{log}: epoch {epoch} ends at {got}, but has records up to {last}")
        if epochs:
            demand(
                log.last_epoch >= epochs[-1], f"{log}: last epoch {log.last_epoch}, records have {epochs[-1]}"
            )
            self.newest_epoch = max(self.newest_epoch, log.last_epoch)

    def rewind_producers(self) -> None:
        """Let each producer go on behind its last batch that is there, as a client that retries does."""
        last: dict[int, BatchHeader] = {}
        for header, _ in self.batches:
            last[header.producer_id] = header
        for producer_id in list(self.producers):
            if producer_id in last:
                self.producers[producer_id].next_sequence = last[producer_id].last_sequence + 1
            else:
                # Nothing of it is left: the broker may have forgotten it, so it starts over under another id.
                del self.producers[producer_id]

    def check_producers(self, log: Log, now_ms: int) -> None:
        """Retries of the last batches are recognised, and gaps refused. Leaves nothing staged."""
        by_producer: dict[int, list[Written]] = defaultdict(list)
        for batch in self.batches:
            if batch.header.producer_id in self.producers and batch.header.base_offset >= log.start_offset:
                by_producer[batch.header.producer_id].append(batch)
        for producer_id, batches in by_producer.items():
            for age, batch in enumerate(reversed(batches[-DEDUPLICATED_BATCHES:])):
                self._check_retry(log, batch, now_ms, is_last=age == 0)
            producer = self.producers[producer_id]
            gap = make_batch(producer.next_sequence + 3, producer=producer)
            try:
                log.stage(memoryview(gap), max(0, log.last_epoch), now_ms)
            except KafkaError as error:
                demand(error.code is ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER, f"{log}: a gap gave {error}")
            else:
                raise Violation(f"{log}: producer {producer_id} may skip sequences")

    def _check_retry(self, log: Log, batch: Written, now_ms: int, *, is_last: bool) -> None:
        header = batch.header
        again = bytearray(batch.content)
        again[:8] = bytes(8)
        try:
            staged = log.stage(memoryview(again), max(0, log.last_epoch), now_ms)
        except KafkaError as error:
            # As in Kafka a snapshot keeps one batch per producer: an older one may be refused, but never taken.
            old = error.code is ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER and not is_last
            demand(old, f"{log}: the retry of {header.base_offset} gave {error}")
            self.refused_retries += 1
            return
        demand(staged.duplicate, f"{log}: the retry of {header.base_offset} would be written again")
        demand(
            (staged.base_offset, staged.last_offset) == (header.base_offset, header.last_offset),
            f"{log}: the retry of {header.base_offset} is said to be at {staged.base_offset}",
        )


def make_batch(
    sequence: int = -1,
    *,
    producer: ProducerModel | None = None,
    records: int = 1,
    size: int = 20,
    timestamp: int = 0,
) -> bytearray:
    """Build a batch as a client sends it."""
    return bytearray(
        build_batch(
            [
                Record(timestamp=timestamp, value=b"%d/" % (sequence + i) + bytes(size))
                for i in range(records)
            ],
            producer_id=producer.producer_id if producer else -1,
            producer_epoch=producer.epoch if producer else -1,
            base_sequence=sequence if producer else -1,
        )
    )
