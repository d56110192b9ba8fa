from __future__ import annotations

import asyncio
import random
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import pytest
from tests.unit.log.support import NOW_MS, FailingDisk, append, make_batch, offsets

from strandline_broker.errors import ErrorCode, KafkaError
from strandline_broker.log.checkpoints import (
    CorruptCheckpoint,
    decode_partition_metadata,
    encode_offsets,
    encode_partition_metadata,
    read_offsets,
)
from strandline_broker.log.config import LogConfig
from strandline_broker.log.epochs import LeaderEpochs
from strandline_broker.log.flusher import Flusher
from strandline_broker.log.identity import Identity, IdentityError, load
from strandline_broker.log.log import Log
from strandline_broker.log.manager import LogManager
from strandline_broker.log.names import file_name, log_directory, parse_log_directory, split_name
from strandline_broker.seams.clock import ManualClock

T1, T2 = UUID(int=1), UUID(int=2)


def manager(disk: FailingDisk) -> LogManager:
    found = LogManager(disk, ManualClock())
    found.open()
    return found


class TestManager:
    def test_a_clean_stop_and_start(self, disk: FailingDisk) -> None:
        logs = manager(disk)
        assert not logs.clean_start
        for index in range(3):
            append(logs.open_or_create("a-b.c", index, T1, LogConfig()), make_batch(index + 1))
        assert logs.close({("a-b.c", 2): 2})
        assert disk.exists(".kafka_cleanshutdown")
        again = manager(disk)
        assert again.clean_start
        assert not disk.exists(".kafka_cleanshutdown")
        assert [log.end_offset for log in again] == [1, 2, 3]
        assert again.high_watermark("a-b.c", 2) == 2
        assert again.topic_id("a-b.c", 0) == T1
        assert (
            disk.read_bytes("recovery-point-offset-checkpoint") == b"0\n3\na-b.c 0 1\na-b.c 1 2\na-b.c 2 3\n"
        )

    def test_an_unclean_start_recovers_from_the_recovery_point(self, disk: FailingDisk) -> None:
        logs = manager(disk)
        log = logs.open_or_create("t", 0, T1, LogConfig())
        append(log, make_batch(5))
        log.sync()
        logs.checkpoint({("t", 0): 4}).write()
        append(log, make_batch(5))
        again = manager(disk)
        assert not again.clean_start
        (found,) = again
        assert (found.recovery.recovery_point, found.end_offset, found.synced_end) == (5, 10, 10)
        assert again.high_watermark("t", 0) == 4
        assert again.lost_synced == []

    def test_lost_bytes_below_the_recovery_point_are_reported(self, disk: FailingDisk) -> None:
        logs = manager(disk)
        log = logs.open_or_create("t", 0, T1, LogConfig())
        append(log, make_batch(5))
        log.sync()
        logs.checkpoint().write()
        disk.open(log.segments[0].path).truncate(10)
        again = manager(disk)
        assert [log.directory for log in again.lost_synced] == ["t-0"]

    def test_a_broken_log_harms_no_other(self, disk: FailingDisk) -> None:
        logs = manager(disk)
        logs.open_or_create("a", 0, T1, LogConfig())
        logs.open_or_create("b", 0, T2, LogConfig())
        disk.remove("a-0/partition.metadata")
        disk.open("a-0/partition.metadata", create=True).append([b"nonsense"])
        again = manager(disk)
        assert [log.directory for log in again] == ["b-0"]
        with pytest.raises(CorruptCheckpoint):
            again.open_or_create("a", 0, T1, LogConfig())
        assert not again.close()
        assert not disk.exists(".kafka_cleanshutdown")

    def test_a_topic_of_another_id_is_moved_aside_and_purged_by_id(self, disk: FailingDisk) -> None:
        logs = manager(disk)
        append(logs.open_or_create("t", 0, T1, LogConfig()), make_batch(5))
        log = logs.open_or_create("t", 0, T2, LogConfig())
        assert log.end_offset == 0
        append(log, make_batch(1))
        assert logs.holds(T1)
        again = manager(disk)
        assert again.holds(T1)
        (log,) = again
        assert (log.end_offset, log.recovery.recovery_point) == (1, 0)
        again.purge(T1)
        assert not again.holds(T1)
        assert [name for name in disk.listdir("") if name.startswith("t-")] == ["t-0"]

    def test_a_deleted_log_leaves_nothing_to_its_successor(self, disk: FailingDisk) -> None:
        logs = manager(disk)
        log = logs.open_or_create("t", 0, T1, LogConfig())
        append(log, make_batch(5))
        log.advance_start(3)
        log.sync()
        logs.checkpoint({("t", 0): 5}).write()
        logs.purge(T1)
        with pytest.raises(KafkaError):
            log.stage(memoryview(make_batch()), 0, NOW_MS)
        for _ in range(2):
            log = logs.open_or_create("t", 0, T2, LogConfig())
            assert (log.start_offset, log.end_offset, logs.high_watermark("t", 0)) == (0, 0, 0)
            logs = manager(disk)
        assert not any(name.endswith("-delete") for name in disk.listdir(""))

    def test_what_was_being_deleted_goes_at_the_next_start(self, disk: FailingDisk) -> None:
        disk.makedirs("t-0.00000000000000010000000000000001-delete")
        manager(disk)
        assert disk.listdir("") == []

    def test_set_aside_keeps_the_data(self, disk: FailingDisk) -> None:
        logs = manager(disk)
        append(logs.open_or_create("t", 0, T1, LogConfig()), make_batch(5))
        logs.set_aside("t", 0)
        assert logs.get("t", 0) is None
        assert logs.holds(T1)
        assert offsets(logs.open_or_create("t", 0, T1, LogConfig())) == [(0, 4)]

    def test_records_without_a_topic_id_are_not_adopted(self, disk: FailingDisk) -> None:
        logs = manager(disk)
        append(logs.open_or_create("t", 0, T1, LogConfig()), make_batch(5))
        disk.remove("t-0/partition.metadata")
        again = manager(disk)
        with pytest.raises(KafkaError) as caught:
            again.open_or_create("t", 0, T1, LogConfig())
        assert caught.value.code is ErrorCode.INCONSISTENT_TOPIC_ID

    def test_a_checkpoint_captured_before_a_truncation_does_not_undo_it(self, disk: FailingDisk) -> None:
        logs = manager(disk)
        log = logs.open_or_create("t", 0, T1, LogConfig())
        append(log, make_batch(1), make_batch(1), make_batch(1))
        log.sync()
        stale = logs.checkpoint()
        log.truncate_to(1)
        stale.write()
        assert read_offsets(disk, "recovery-point-offset-checkpoint") == {("t", 0): 1}

    def test_sweep_applies_retention_and_names_what_wants_a_sync(self, disk: FailingDisk) -> None:
        logs = manager(disk)
        log = logs.open_or_create("t", 0, T1, LogConfig(segment_bytes=200, retention_ms=1000))
        idle = logs.open_or_create("u", 0, T2, LogConfig())
        append(log, make_batch(size=90, producer=(1, 0, 0)))
        append(log, make_batch(size=90))
        assert logs.sweep(NOW_MS, lambda log: log.end_offset) == [log]
        log.sync()
        logs.sweep(NOW_MS + 10**9, lambda log: log.end_offset)
        assert log.start_offset == 2
        assert log.producers.get(1) is None
        assert not idle.wants_sync

    def test_a_dynamic_config_reaches_an_open_log(self, disk: FailingDisk) -> None:
        logs = manager(disk)
        log = logs.open_or_create("t", 0, T1, LogConfig())
        assert logs.open_or_create("t", 0, T1, LogConfig(max_message_bytes=70)) is log
        with pytest.raises(KafkaError):
            log.stage(memoryview(make_batch()), 0, NOW_MS)

    def test_many_logs_need_few_files(self, disk: FailingDisk) -> None:
        logs = manager(disk)
        for index in range(60):
            logs.open_or_create("t", index, T1, LogConfig()).assign_epoch_start(1)
        logs.close()
        again = LogManager(disk, ManualClock(), max_open_files=20)
        again.open()
        assert len(again.logs) == 60
        assert len(again._files) <= 20
        assert all(segment._file is None for log in again for segment in log.segments)


def test_names() -> None:
    assert file_name(170210, ".log") == "00000000000000170210.log"
    assert split_name("00000000000000170210.log") == (170210, ".log")
    assert split_name("00000000000000000000.log.deleted") == (0, ".log.deleted")
    assert split_name("170210.log") == (-1, "")
    assert split_name("0000000000000000001x.log") == (-1, "")
    assert parse_log_directory(log_directory("my-topic.x_1", 12)) == ("my-topic.x_1", 12)
    for name in ("t", "t-", "-1", "t-1.abc-delete", "meta.json", "t-x"):
        assert parse_log_directory(name) is None


def test_checkpoint_files_are_read_back_or_refused(disk: FailingDisk) -> None:
    offsets = {("a b".replace(" ", "-"), 0): 5, ("z", 10): 1 << 60}
    disk.write_atomic("c", encode_offsets(offsets))
    assert read_offsets(disk, "c") == offsets
    assert read_offsets(disk, "missing") == {}
    for text in (b"1\n0\n", b"0\n2\na 0 1\n", b"0\nx\n", b"0\n1\na 0\n", b"\xff", b"0\n1\na 0 x\n"):
        disk.write_atomic("c", text)
        with pytest.raises(CorruptCheckpoint):
            read_offsets(disk, "c")


def test_partition_metadata() -> None:
    text = encode_partition_metadata(UUID("7b2f0f7c-5e4e-4a57-9c9f-3f7b8f2d1c11"))
    assert text.startswith(b"version: 0\ntopic_id: ")
    assert decode_partition_metadata(text) == UUID("7b2f0f7c-5e4e-4a57-9c9f-3f7b8f2d1c11")
    with pytest.raises(CorruptCheckpoint):
        decode_partition_metadata(b"version: 0\n")


class TestEpochs:
    def test_end_offsets(self) -> None:
        epochs = LeaderEpochs([(2, 10), (5, 20), (7, 30)])
        assert [epochs.end_offset(epoch, 40) for epoch in (-1, 0, 2, 3, 5, 6, 7, 8)] == [
            (-1, -1),
            (0, 10),
            (2, 20),
            (2, 20),
            (5, 30),
            (5, 30),
            (7, 40),
            (-1, -1),
        ]
        assert [epochs.epoch_of(offset) for offset in (9, 10, 19, 20, 35)] == [-1, 2, 2, 5, 7]

    def test_newer_information_wins(self) -> None:
        epochs = LeaderEpochs([(2, 10), (5, 20), (7, 30)])
        epochs.assign(8, 20)
        assert epochs.entries == [(2, 10), (8, 20)]
        epochs.assign(8, 25)
        epochs.assign(-1, 30)
        assert epochs.entries == [(2, 10), (8, 20)]
        epochs.assign(3, 5)
        assert epochs.entries == [(3, 5)]

    def test_truncation_from_both_ends(self) -> None:
        epochs = LeaderEpochs([(2, 10), (5, 20), (7, 30)])
        epochs.truncate_from_start(5)
        assert not epochs.dirty
        epochs.truncate_from_start(25)
        assert epochs.entries == [(5, 25), (7, 30)]
        epochs.truncate_from_end(31)
        assert epochs.entries == [(5, 25), (7, 30)]
        epochs.truncate_from_end(30)
        assert (epochs.entries, epochs.latest_epoch, epochs.dirty) == ([(5, 25)], 5, True)
        epochs.truncate_from_end(0)
        assert (epochs.entries, epochs.latest_epoch) == ([], -1)


class TestIdentity:
    def test_first_start_and_restart(self, disk: FailingDisk) -> None:
        first, new = Identity.open(disk, cluster_id="c", broker_id=3, rng=random.Random(1), boot_id="b1")
        assert new
        again, new = Identity.open(disk, cluster_id="c", broker_id=3, rng=random.Random(2), boot_id="b2")
        assert (again, new) == (first, False)
        assert load(disk) == first
        assert 1 <= first.generation < 1 << 53

    @pytest.mark.parametrize(("cluster", "broker"), [("other", 3), ("c", 4)])
    def test_another_identity_is_refused(self, disk: FailingDisk, cluster: str, broker: int) -> None:
        Identity.open(disk, cluster_id="c", broker_id=3, rng=random.Random(1))
        with pytest.raises(IdentityError, match="belongs to broker 3 of cluster c"):
            Identity.open(disk, cluster_id=cluster, broker_id=broker, rng=random.Random(1))

    def test_data_without_an_identity_is_refused(self, disk: FailingDisk) -> None:
        disk.makedirs("lost+found")
        disk.makedirs("t-0")
        with pytest.raises(IdentityError, match="t-0"):
            Identity.open(disk, cluster_id="c", broker_id=3, rng=random.Random(1))
        disk.remove_tree("t-0")
        assert Identity.open(disk, cluster_id="c", broker_id=3, rng=random.Random(1))[1]

    @pytest.mark.parametrize(
        "content", [b"", b"{}", b"[]", b'{"version": 9}', b'{"version": 1, "cluster_id": "c"}']
    )
    def test_an_unreadable_identity_is_refused(self, disk: FailingDisk, content: bytes) -> None:
        disk.open("meta.json", create=True).append([content])
        with pytest.raises(IdentityError):
            Identity.open(disk, cluster_id="c", broker_id=3, rng=random.Random(1))

    @pytest.mark.parametrize(
        ("boot", "clean", "lost", "replicated", "renewed"),
        [
            ("b1", True, False, True, False),
            ("b1", False, False, True, False),
            ("b2", False, False, True, True),
            ("", False, False, True, True),
            ("b2", True, False, True, False),
            ("b2", False, False, False, False),
            ("b1", True, True, False, True),
        ],
    )
    def test_generation(self, boot: str, *, clean: bool, lost: bool, replicated: bool, renewed: bool) -> None:
        identity = Identity("c", 1, "v", 77, "b1")
        after = identity.after_start(
            random.Random(1), boot_id=boot, clean=clean, lost_synced=lost, replicated=replicated
        )
        assert (after.generation != 77) is renewed
        assert after.boot_id == boot


class TestFlusher:
    async def _run(
        self, disk: FailingDisk, *, fail: bool
    ) -> tuple[list[list[str]], list[str], list[Log], int]:
        loop = asyncio.get_running_loop()
        logs = [Log.open(disk, f"t-{index}", LogConfig(), now_ms=NOW_MS, clean=False) for index in range(3)]
        synced: list[list[str]] = []
        failed: list[str] = []
        with ThreadPoolExecutor(1) as executor:
            flusher = Flusher(
                loop,
                executor,
                on_synced=lambda done: synced.append([log.directory for log in done]),
                on_failed=lambda log: failed.append(log.directory),
            )
            append(logs[0], make_batch())
            flusher.request(logs[0])
            for log in logs:
                append(log, make_batch())
                flusher.request(log)
            disk.fail_sync = fail
            await asyncio.wait_for(flusher.drain(), 10)
        return synced, failed, logs, flusher.groups

    def test_what_comes_during_a_sync_forms_the_next_group(self, disk: FailingDisk) -> None:
        synced, failed, logs, groups = asyncio.run(self._run(disk, fail=False))
        assert synced == [["t-0"], ["t-0", "t-1", "t-2"]]
        assert failed == []
        assert groups == 2
        assert [log.synced_end for log in logs] == [2, 1, 1]

    def test_a_failed_sync_reaches_the_callback_and_is_not_repeated(self, disk: FailingDisk) -> None:
        synced, failed, logs, _ = asyncio.run(self._run(disk, fail=True))
        assert set(failed) == {"t-0", "t-1", "t-2"}
        assert [log.synced_end for log in logs] == [len(synced), 0, 0]
        assert all(log.failed for log in logs)
