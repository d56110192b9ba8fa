"""Targets of what lies in a log's directory: damaged indexes, checkpoints, snapshots and segments.

Small files have their decoders. Beyond those, a whole log is opened over damaged files: after an unclean stop it must
come up, hold only what its checksums vouch for, and take appends; with damaged indexes only, every read must still be
right.
"""

from __future__ import annotations

import struct
from functools import cache

from crc32c import crc32c
from tests.fuzz.target import Target, split

from strandline_broker.errors import KafkaError
from strandline_broker.log import checkpoints, producer_snapshot
from strandline_broker.log.checkpoints import CorruptCheckpoint
from strandline_broker.log.config import LogConfig
from strandline_broker.log.identity import META_FILE, IdentityError, load
from strandline_broker.log.log import Log
from strandline_broker.log.producer_snapshot import CorruptSnapshot
from strandline_broker.seams.disk import DiskError
from strandline_broker.seams.sim_disk import SimDisk
from strandline_broker.wire.batch import Record, build_batch, iter_batches

_CONFIG = LogConfig(segment_bytes=1500, index_interval_bytes=100, segment_index_bytes=1200)
_DIRECTORY = "t-0"
_NOW_MS = 1_700_000_000_000
_LENGTH = struct.Struct(">H")


def _batch(sequence: int, size: int = 30) -> bytearray:
    records = [Record(timestamp=_NOW_MS + sequence, value=bytes([sequence % 256]) * size)]
    return bytearray(build_batch(records, producer_id=5, producer_epoch=0, base_sequence=sequence))


def _open(disk: SimDisk, *, clean: bool) -> Log:
    return Log.open(disk, _DIRECTORY, _CONFIG, now_ms=_NOW_MS, clean=clean)


def _write(log: Log, sequence: int) -> None:
    batch = _batch(sequence)
    log.stage(memoryview(batch), 3, _NOW_MS)
    log.commit()


@cache
def _sound_log() -> dict[str, bytes]:
    """The files of a log of three segments, closed cleanly."""
    disk = SimDisk()
    log = _open(disk, clean=False)
    for sequence in range(35):
        _write(log, sequence)
        if sequence == 20:
            log.sync()
            log.advance_start(4)
    log.take_snapshot()
    log.close()
    return {path: bytes(inode.data) for path, inode in disk.files()}


def _disk(files: dict[str, bytes]) -> SimDisk:
    disk = SimDisk()
    disk.makedirs(_DIRECTORY)
    for path, content in files.items():
        disk.open(path, create=True).append([content])
    return disk


def _pack(files: dict[str, bytes]) -> bytes:
    return b"".join(_LENGTH.pack(len(content)) + content for _, content in sorted(files.items()))


def _unpack(data: bytes, names: list[str]) -> dict[str, bytes]:
    """Give each name its piece of the input; a name without one has no file."""
    files: dict[str, bytes] = {}
    for name in names:
        if len(data) < _LENGTH.size:
            break
        (length,) = _LENGTH.unpack_from(data)
        if length != 0xFFFF:
            files[name] = data[_LENGTH.size : _LENGTH.size + length]
        data = data[_LENGTH.size + length :]
    return files


def _read_all(log: Log, max_bytes: int) -> list[tuple[int, bytes]]:
    found: list[tuple[int, bytes]] = []
    offset = log.start_offset
    while offset < log.end_offset:
        part = log.read(offset, max_bytes, log.end_offset, min_one_batch=True)
        assert part is not None, f"nothing at {offset} below {log.end_offset}"
        before, data = offset, part.read()
        for position, header in iter_batches(data):
            assert header.last_offset >= offset  # offsets lie outside the checksum: damage may leave gaps
            found.append((header.base_offset, data[position : position + header.size]))
            offset = header.next_offset
        assert offset > before, f"a read at {offset} makes no progress"
    return found


def damaged_log(data: bytes) -> None:
    """Any bytes in any file of the log, after an unclean stop."""
    disk = _disk(_unpack(data, sorted(_sound_log())))
    log = _open(disk, clean=False)
    assert log.synced_end == log.end_offset >= log.start_offset >= 0
    assert not log.verify()
    before = _read_all(log, 1 << 20)
    batch = bytearray(build_batch([Record(timestamp=_NOW_MS, value=b"new")]))
    staged = log.stage(memoryview(batch), max(3, log.last_epoch), _NOW_MS)
    assert staged.base_offset == log.end_offset
    log.commit()
    log.sync()
    assert _read_all(log, 300)[:-1] == before
    log.close(clean=False)
    again = _open(disk, clean=False)
    assert _read_all(again, 1 << 20) == [*before, (staged.base_offset, bytes(batch))]


def damaged_log_trusted(data: bytes) -> None:
    """The same after a stop that is believed to be clean: reads may be refused, never anything else."""
    disk = _disk(_unpack(data, sorted(_sound_log())))
    log = _open(disk, clean=True)
    offset = log.start_offset
    while offset < log.end_offset:
        log.read(offset, 1000, log.end_offset, min_one_batch=True)
        log.offset_for_timestamp(_NOW_MS + offset, log.end_offset)
        offset += 1 + (log.end_offset - offset) // 20
    log.max_timestamp(log.end_offset)
    log.verify()


def damaged_indexes(data: bytes) -> None:
    """Any bytes in the indexes beside sound segments: every read by offset is still right."""
    (small,), data = split(data, 1)
    files = _sound_log()
    indexes = sorted(name for name in files if name.endswith("index"))
    damaged = {name: content for name, content in files.items() if name not in indexes}
    damaged |= _unpack(data, indexes)
    log = _open(_disk(damaged), clean=True)
    expected = _read_all(_open(_disk(files), clean=True), 1 << 20)
    assert _read_all(log, 150 + 8 * small) == expected
    for base, _ in expected:
        found = log.offset_for_timestamp(_NOW_MS + base, log.end_offset)
        # A wrong time index may make a lookup miss records, as in Kafka, but never invent one.
        assert found is None or (found[0] == _NOW_MS + found[1] >= _NOW_MS + base)


def offset_checkpoint(data: bytes) -> None:
    disk = SimDisk()
    disk.write_atomic("f", data)
    offsets = checkpoints.read_offsets(disk, "f")
    if all(topic.isascii() for topic, _ in offsets):
        disk.write_atomic("f", checkpoints.encode_offsets(offsets))
        assert checkpoints.read_offsets(disk, "f") == offsets


def epoch_checkpoint(data: bytes) -> None:
    disk = SimDisk()
    disk.write_atomic("f", data)
    checkpoints.read_epochs(disk, "f")


def start_checkpoint(data: bytes) -> None:
    disk = SimDisk()
    disk.write_atomic("f", data)
    checkpoints.read_single_offset(disk, "f")


def partition_metadata(data: bytes) -> None:
    topic_id = checkpoints.decode_partition_metadata(data)
    assert checkpoints.decode_partition_metadata(checkpoints.encode_partition_metadata(topic_id)) == topic_id


def identity(data: bytes) -> None:
    disk = SimDisk()
    disk.write_atomic(META_FILE, data)
    found = load(disk)
    assert found is not None
    found.save(disk)
    assert load(disk) == found


def snapshot(data: bytes) -> None:
    entries = producer_snapshot.decode(data)
    assert producer_snapshot.decode(producer_snapshot.encode(entries)) == entries


def snapshot_body(data: bytes) -> None:
    """With the right checksum, since a fuzzer does not guess it."""
    snapshot(struct.pack(">hI", 1, crc32c(data)) + data)


def _seeds_of(kind: str) -> tuple[bytes, ...]:
    return tuple(content for name, content in _sound_log().items() if name.endswith(kind))


_DAMAGE = (KafkaError, DiskError)
_INDEXES = {name: content for name, content in _sound_log().items() if name.endswith("index")}

LOG_TARGETS = (
    Target("damaged-log", damaged_log, (), (_pack(_sound_log()),)),
    Target("damaged-log-trusted", damaged_log_trusted, _DAMAGE, (_pack(_sound_log()),)),
    Target(
        "damaged-indexes", damaged_indexes, (), (b"\0" + _pack(_INDEXES), b"\0\xff\xff" + _pack(_INDEXES))
    ),
    Target(
        "offset-checkpoint", offset_checkpoint, (CorruptCheckpoint,), (b"0\n2\nt 0 5\nt 1 7\n", b"0\n0\n")
    ),
    Target("epoch-checkpoint", epoch_checkpoint, (CorruptCheckpoint,), (b"0\n2\n0 0\n3 17\n",)),
    Target("start-checkpoint", start_checkpoint, (CorruptCheckpoint,), (b"0\n1\n17\n",)),
    Target(
        "partition-metadata",
        partition_metadata,
        (CorruptCheckpoint,),
        (b"version: 0\ntopic_id: AAAAAAAAAAAAAAAAAAAABQ",),
    ),
    Target(
        "identity",
        identity,
        (IdentityError,),
        (
            b'{"version": 1, "cluster_id": "c", "broker_id": 0, "volume_id": "v", "generation": 7, "boot_id": ""}',
        ),
    ),
    Target("snapshot", snapshot, (CorruptSnapshot,), _seeds_of(".snapshot")),
    Target("snapshot-body", snapshot_body, (CorruptSnapshot,), tuple(s[6:] for s in _seeds_of(".snapshot"))),
)
