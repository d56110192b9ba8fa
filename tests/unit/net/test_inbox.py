"""The inbox alone: how much it asks for, which is what bounds memory and avoids copies."""

from __future__ import annotations

from typing import cast

from tests.unit.net.support import frame

from strandline_broker.net.buffers import BufferPool
from strandline_broker.net.inbox import Inbox, ReceiveBuffer
from strandline_broker.seams.network import Stream

MIB = 1 << 20
WHOLE = 256 * 1024


class AskedStream:
    """Gives what it is told to, and remembers how much was asked for."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.next = b""

    def recv_into(self, buffer: memoryview) -> int:
        self.asked.append(len(buffer))
        buffer[: len(self.next)] = self.next
        return len(self.next)


class Receiving:
    def __init__(self) -> None:
        self.pool = BufferPool(8 * MIB, MIB, lambda callback: callback())
        self.inbox = Inbox(ReceiveBuffer(WHOLE), self.pool)
        self.stream = AskedStream()

    def receive(self, data: bytes) -> int:
        self.stream.next = data
        assert self.inbox.receive(cast(Stream, self.stream)) == len(data)
        return self.stream.asked[-1]

    def received(self) -> bytes:
        return bytes(self.inbox.view[self.inbox.start : self.inbox.end])


def test_a_started_small_frame_and_what_follows_come_with_one_more_recv() -> None:
    here = Receiving()
    data = frame(b"a" * 1000)
    assert here.receive(b"done" + data[:400]) == WHOLE
    here.inbox.settle(4, len(data))
    assert here.pool.in_use == 400
    assert here.receive(data[400:] + b"more") == WHOLE - 400
    assert here.received() == data + b"more"
    here.inbox.settle(here.inbox.end, 0)
    assert here.pool.in_use == 0


def test_when_memory_is_short_nothing_is_read_beyond_the_started_frame() -> None:
    here = Receiving()
    data = frame(b"a" * 1000)
    here.receive(data[:400])
    here.inbox.settle(0, len(data))
    here.pool.charge(MIB)
    assert here.pool.full
    assert here.receive(data[400:]) == 604
    assert here.received() == data


def test_a_large_frame_is_received_in_its_place_and_the_next_one_hardly_copied() -> None:
    here = Receiving()
    data = frame(bytes(range(256)) * 2000)
    for first in (
        WHOLE,
        16 * 1024,
    ):  # when the last frame was large, so is the next: little comes with its prefix
        assert here.receive(data[:1000]) == first
        buffer = here.pool.try_acquire(len(data))
        assert buffer is not None
        here.inbox.begin_large(buffer, 0, len(data))
        assert here.receive(data[1000:2000]) == len(data) - 1000
        assert here.receive(data[2000:]) == len(data) - 2000
        assert here.inbox.complete, "all bytes are there"
        assert here.received() == data
        here.inbox.settle(len(data), 0)
        assert here.pool.in_use == 0
    here.receive(frame(b"small"))
    here.inbox.settle(here.inbox.end, 0)
    assert here.receive(b"x") == WHOLE


def test_what_is_kept_is_not_copied_again_for_each_frame_of_it() -> None:
    here = Receiving()
    here.receive(frame(b"first") + frame(b"second") + frame(b"third"))
    here.inbox.settle(9, 0)
    kept = here.inbox.view
    here.inbox.settle(here.inbox.start + 10, 0)
    assert here.inbox.view is kept
    assert here.received() == frame(b"third")
    here.inbox.clear()
    assert here.pool.in_use == 0
    assert len(here.received()) == 0
