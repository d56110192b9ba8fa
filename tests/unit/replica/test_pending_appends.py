"""Appends that wait to be acknowledged: who is told what when that does not happen, and who stays."""

from __future__ import annotations

from strandline_broker.errors import ErrorCode
from strandline_broker.replica.pending_appends import PendingAppends
from strandline_broker.replica.waiters import ROW_APPEND_TIME, ROW_BASE_OFFSET, ROW_ERROR

NOT_TOLD: list[object] = [0, ErrorCode.NONE, 7, 1_700_000_000_000, 0]


class Waiter:
    """A produce request, or a coordinator if it is patient."""

    def __init__(self, pending: PendingAppends, *, acks: int = -1, patient: bool = False) -> None:
        self.acks = acks
        self.patient = patient
        self.told: list[list[object]] = []
        self.left_behind: list[int] = []
        self._pending = pending

    def partition_done(self, row: list[object]) -> None:
        """Take the answer."""
        self.told.append(row)
        self.left_behind.append(len(self._pending.until_synced) + len(self._pending.until_committed))

    def waits(self, offset: int) -> list[object]:
        """Wait for what `acks` says until `offset` is passed; return the row."""
        row = list(NOT_TOLD)
        queue = self._pending.until_committed if self.acks == -1 else self._pending.until_synced
        queue.append((self, row, offset))
        return row


def _refusal(code: ErrorCode) -> list[object]:
    row = list(NOT_TOLD)
    row[ROW_ERROR], row[ROW_BASE_OFFSET], row[ROW_APPEND_TIME] = code, -1, -1
    return row


def test_all_fail_at_once_each_with_its_row() -> None:
    pending = PendingAppends()
    one, all_in_sync = Waiter(pending, acks=1), Waiter(pending, patient=True)
    rows = [one.waits(3), all_in_sync.waits(5)]
    pending.fail(ErrorCode.NOT_LEADER_OR_FOLLOWER)
    assert rows == [_refusal(ErrorCode.NOT_LEADER_OR_FOLLOWER)] * 2
    assert (one.told, all_in_sync.told) == ([rows[0]], [rows[1]])
    assert one.left_behind == all_in_sync.left_behind == [0], "nobody is told who could be told again"


def test_only_the_impatient_are_told_of_an_isr_below_its_minimum() -> None:
    pending = PendingAppends()
    hasty, patient, synced = Waiter(pending), Waiter(pending, patient=True), Waiter(pending, acks=1)
    first, _, kept, _, last = (
        hasty.waits(3), synced.waits(4), patient.waits(5), patient.waits(6), hasty.waits(7)
    )  # fmt: skip
    pending.fail_impatient()
    assert hasty.told == [first, last] == [_refusal(ErrorCode.NOT_ENOUGH_REPLICAS_AFTER_APPEND)] * 2
    assert (patient.told, synced.told, kept) == ([], [], NOT_TOLD)
    assert [offset for _, _, offset in pending.until_committed] == [5, 6]
    assert [offset for _, _, offset in pending.until_synced] == [4]


def test_who_waited_too_long_is_forgotten_in_both_queues_and_not_told() -> None:
    pending = PendingAppends()
    late, other = Waiter(pending), Waiter(pending)
    rows = [late.waits(3), late.waits(9)]
    other.waits(5)
    late.acks = 1
    rows.insert(0, late.waits(4))
    assert pending.forget(late) == rows
    assert (late.told, rows) == ([], [NOT_TOLD] * 3)
    assert [entry[0] for entry in (*pending.until_synced, *pending.until_committed)] == [other]
    assert pending.forget(late) == []


def test_the_queues_stay_the_same_objects() -> None:
    pending = PendingAppends()
    synced, committed = pending.until_synced, pending.until_committed
    waiter = Waiter(pending)
    for end in (
        pending.fail_impatient,
        lambda: pending.forget(waiter),
        lambda: pending.fail(ErrorCode.NONE),
    ):
        waiter.waits(1)
        end()
        assert pending.until_committed is committed
        assert pending.until_synced is synced
        assert not committed
