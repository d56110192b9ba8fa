"""Produce clients on bare sockets: as little work per request as Python allows, so times are the broker's.

Callers: the rows for one-record requests and for start-up.
"""

from __future__ import annotations

import gc
import selectors
import socket
import struct
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from benchmarks import requests

_TIMEOUT_S = 60.0
_RECV_BYTES = 1 << 16
_PREFIX = struct.Struct(">ii")  # length, correlation id
_CODE = struct.Struct(">h")


class RequestFailedError(Exception):
    """The broker answered a request of a raw client with an error, or closed the connection."""


class Latencies(NamedTuple):
    """What one run of a raw client saw."""

    requests: int
    elapsed_s: float
    p50_us: float
    p99_us: float
    p999_us: float


class RawClient:
    """One blocking connection."""

    def __init__(self, host: str, port: int, *, timeout_s: float = _TIMEOUT_S) -> None:
        self.socket = socket.create_connection((host, port), timeout=timeout_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close(self) -> None:
        """Close the connection."""
        self.socket.close()

    def ask(self, request: bytes) -> bytes:
        """Send a framed request and return its answer without the length prefix."""
        self.socket.sendall(request)
        (length,) = struct.unpack(">i", self._exactly(4))
        return self._exactly(length)

    def _exactly(self, count: int) -> bytes:
        parts = bytearray()
        while len(parts) < count:
            part = self.socket.recv(count - len(parts))
            if not part:
                raise RequestFailedError("the broker closed the connection")
            parts += part
        return bytes(parts)

    def create_topic(self, topic: bytes, partitions: int) -> None:
        """Create a topic (or find that it exists) and wait until every partition has a leader."""
        code, message = requests.create_topic_error(self.ask(requests.create_topic(topic, partitions, 1)))
        if code not in (0, requests.TOPIC_ALREADY_EXISTS):
            raise RequestFailedError(f"CreateTopics answered with error {code}: {message}")
        self.await_leaders(topic, partitions)

    def await_leaders(self, topic: bytes, partitions: int) -> None:
        """Wait until every partition of the topic has a leader."""
        deadline = time.monotonic() + _TIMEOUT_S
        while time.monotonic() < deadline:
            found = requests.leaders(self.ask(requests.metadata(topic, 2)))
            if found and len(found) == partitions and all(code == 0 <= leader for code, leader in found):
                return
            time.sleep(0.002)
        raise RequestFailedError(f"no leaders for {topic.decode()} within {_TIMEOUT_S} s")

    def await_writable(self, topic: bytes, partitions: Sequence[int], data: bytes) -> None:
        """Produce one batch to every partition: a broker may announce its leadership before it acts on it."""
        deadline = time.monotonic() + _TIMEOUT_S
        for partition in partitions:
            while (code := self.produce_once(topic, partition, data)) != 0:
                if code not in requests.NOT_YET_LEADER or time.monotonic() > deadline:
                    raise RequestFailedError(f"Produce to partition {partition} answered with error {code}")
                time.sleep(0.002)

    def produce_once(self, topic: bytes, partition: int, data: bytes) -> int:
        """Produce one batch and return the error code."""
        answer = self.ask(requests.produce(topic, partition, data, 3))
        code: int = struct.unpack_from(">h", answer, requests.produce_answer(topic).error_at)[0]
        return code


def alone(
    host: str, port: int, topic: bytes, partitions: Sequence[int], value: bytes, count: int
) -> Latencies:
    """Send one-record requests one after the other on one connection, round-robin over the partitions."""
    client = RawClient(host, port)
    ring = _ring(topic, partitions, value)
    layout = requests.produce_answer(topic)
    took_ns: list[int] = []
    send, exactly, clock = client.socket.sendall, client._exactly, time.perf_counter_ns
    try:
        with quiet():
            began = clock()
            for index in range(count):
                slot = index % len(ring)
                request = ring[slot]
                before = clock()
                send(request)
                answer = exactly(layout.size)
                took_ns.append(clock() - before)
                _check(answer, 0, layout, slot)
            elapsed_ns = clock() - began
    finally:
        client.close()
    return _latencies(took_ns, elapsed_ns)


def saturated(
    host: str, port: int, topic: bytes, partitions: Sequence[int], value: bytes, count: int, *, in_flight: int
) -> Latencies:
    """Keep `in_flight` one-record requests open on one connection for each of the partitions."""
    lanes = [_Lane(host, port, topic, partition, value, in_flight) for partition in partitions]
    connections = len(lanes)
    took_ns: list[int] = []
    selector = selectors.DefaultSelector()
    for lane in lanes:
        selector.register(lane.socket, selectors.EVENT_READ, lane)
    per_lane = count // connections
    try:
        with quiet():
            began = time.perf_counter_ns()
            for lane in lanes:
                lane.left = per_lane
                lane.send(in_flight)
            open_lanes = connections
            while open_lanes:
                ready = selector.select(_TIMEOUT_S)
                if not ready:
                    raise RequestFailedError(f"no answer for {_TIMEOUT_S} s")
                for key, _events in ready:
                    open_lanes -= key.data.receive(took_ns)
            elapsed_ns = time.perf_counter_ns() - began
    finally:
        selector.close()
        for lane in lanes:
            lane.socket.close()
    return _latencies(took_ns, elapsed_ns)


class _Lane:
    """One pipelined connection: a window of equal requests, told apart by their correlation ids."""

    def __init__(self, host: str, port: int, topic: bytes, partition: int, value: bytes, window: int) -> None:
        self.socket = RawClient(host, port).socket
        self.left = 0
        self._layout = requests.produce_answer(topic)
        data = requests.batch([value], int(time.time() * 1000)).data
        self._ring = [requests.produce(topic, partition, data, slot) for slot in range(window)]
        self._next_sent = self._next_received = 0
        self._sent_ns: deque[int] = deque()
        self._buffer = bytearray()

    def send(self, count: int) -> None:
        count = min(count, self.left)
        self.left -= count
        window = len(self._ring)
        parts = [self._ring[(self._next_sent + offset) % window] for offset in range(count)]
        self._next_sent += count
        self._sent_ns.extend([time.perf_counter_ns()] * count)
        self.socket.sendall(b"".join(parts))

    def receive(self, took_ns: list[int]) -> bool:
        """Read what has arrived and refill the window; True once everything is answered."""
        part = self.socket.recv(_RECV_BYTES)
        if not part:
            raise RequestFailedError("the broker closed the connection")
        now = time.perf_counter_ns()
        self._buffer += part
        complete = len(self._buffer) // self._layout.size
        for index in range(complete):
            _check(self._buffer, index * self._layout.size, self._layout, self._next_received)
            self._next_received = (self._next_received + 1) % len(self._ring)
            took_ns.append(now - self._sent_ns.popleft())
        del self._buffer[: complete * self._layout.size]
        if complete and self.left:
            self.send(complete)
        return not self._sent_ns


def _ring(topic: bytes, partitions: Sequence[int], value: bytes) -> list[bytes]:
    data = requests.batch([value], int(time.time() * 1000)).data
    return [requests.produce(topic, partition, data, slot) for slot, partition in enumerate(partitions)]


def _check(data: bytes | bytearray, at: int, layout: requests.ProduceAnswer, correlation_id: int) -> None:
    length, answered = _PREFIX.unpack_from(data, at)
    (code,) = _CODE.unpack_from(data, at + 4 + layout.error_at)
    if length + 4 != layout.size or answered != correlation_id or code != 0:
        raise RequestFailedError(
            f"expected {layout.size - 4} bytes for request {correlation_id}, "
            f"got {length} for {answered}, error {code}"
        )


def _latencies(took_ns: list[int], elapsed_ns: int) -> Latencies:
    took_ns.sort()

    def at(share: float) -> float:
        return took_ns[min(len(took_ns) - 1, int(len(took_ns) * share))] / 1000

    return Latencies(len(took_ns), elapsed_ns / 1e9, at(0.5), at(0.99), at(0.999))


@contextmanager
def quiet() -> Iterator[None]:
    """No garbage collection: its pauses would count as the broker's."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
