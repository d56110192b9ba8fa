"""A follower's incremental session: what is sent when."""

from __future__ import annotations

from strandline_broker.replica.follower_session import FollowerSession

A, B = bytes(15) + b"a", bytes(15) + b"b"


def _entry(index: int, offset: int) -> tuple[int, int, int, int, int, int]:
    return (index, 1, offset, 1, 0, 1024)


def test_first_everything_then_changes_only() -> None:
    session = FollowerSession()
    everything = {(A, 0): _entry(0, 5), (A, 1): _entry(1, 6), (B, 0): _entry(0, 7)}
    first = session.request(everything, [])
    assert (first.session_id, first.session_epoch, first.forgotten) == (0, 0, [])
    assert first.topics == [(A, [_entry(0, 5), _entry(1, 6)]), (B, [_entry(0, 7)])]
    session.answered(77)
    second = session.request({(A, 0): _entry(0, 9), (B, 0): _entry(0, 7)}, [(A, 1), (B, 9)])
    assert second == (77, 1, [(A, [_entry(0, 9)])], [(A, [1])])
    session.answered(77)
    assert session.request({}, []) == (77, 2, [], [])


def test_a_lost_session_is_named_once_more_so_that_the_leader_can_drop_it() -> None:
    session = FollowerSession()
    session.request({(A, 0): _entry(0, 5)}, [])
    session.answered(77)
    session.reset()
    assert not session.established
    again = session.request({(A, 0): _entry(0, 5)}, [])
    assert (again.session_id, again.session_epoch) == (77, 0)
    session.answered(78)
    assert session.request({}, []).session_id == 78


def test_without_a_session_everything_goes_each_time() -> None:
    session = FollowerSession()
    session.request({(A, 0): _entry(0, 5)}, [])
    session.answered(0)
    assert not session.established
    assert session.request({(A, 0): _entry(0, 5)}, []).topics == [(A, [_entry(0, 5)])]


def test_a_partition_that_was_dropped_and_comes_back_is_sent_again() -> None:
    session = FollowerSession()
    session.request({(A, 0): _entry(0, 5), (A, 1): _entry(1, 5)}, [])
    session.answered(77)
    session.request({}, [(A, 1)])
    session.answered(77)
    assert session.request({(A, 1): _entry(1, 5)}, []).topics == [(A, [_entry(1, 5)])]
