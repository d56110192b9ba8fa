"""One client works; around it others send garbage, stall, lie about sizes, never read, and hang up.

What must hold: every record of the good client is acknowledged and read once and in order, quickly and
without a single broken connection; the broker is the same process as before, has closed whom it had to
close, and its memory stays bounded.
"""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Message, Producer, TopicPartition
from tests.crash.dev_cluster import DevCluster
from tests.crash.history import Ack, History, Key, Read, Send, check
from tests.crash.kill_load import TOPIC, create_topic, decode, encode, end_offsets

PARTITIONS = 3
DURATION_S = 6.0
CROWD = 60

# The request memory is 256 MiB by default; what is beyond that plus slack is growth.
MEMORY_GROWTH_BYTES = 450 << 20
# Less than any timeout that a record could have waited for, and more than what a busy machine makes of it, on which these
# neighbours are threads of the same process.
WORST_ACK_S = 20.0

API_VERSIONS, METADATA, PRODUCE, FETCH = 18, 3, 0, 1


def _frame(api_key: int, version: int, body: bytes, *, correlation_id: int = 1) -> bytes:
    request = struct.pack(">hhih", api_key, version, correlation_id, 3) + b"bad" + body
    return struct.pack(">i", len(request)) + request


class Neighbour:
    """A badly behaved client. `behave` may raise OSError at any time: being thrown out is its due."""

    def __init__(self, address: tuple[str, int], seed: int, stop: threading.Event) -> None:
        self.address = address
        self.rng = random.Random(seed)
        self.stop = stop
        self.rounds = 0

    def connect(self) -> socket.socket:
        return socket.create_connection(self.address, timeout=2)

    def run(self, behave: Callable[[Neighbour], None]) -> None:
        while not self.stop.is_set():
            with contextlib.suppress(OSError):
                behave(self)
            self.rounds += 1
            self.stop.wait(0.01)


def garbage(me: Neighbour) -> None:
    """Random bytes, some behind a plausible length."""
    with me.connect() as sock:
        data = me.rng.randbytes(me.rng.randrange(1, 5000))
        sock.sendall(data if me.rng.random() < 0.5 else struct.pack(">i", len(data)) + data)
        sock.settimeout(0.1)
        sock.recv(1000)


def impossible_length(me: Neighbour) -> None:
    """Lengths that are negative, zero, too small, or as large as they get."""
    with me.connect() as sock:
        sock.sendall(struct.pack(">i", me.rng.choice((-1, -(1 << 31), 0, 1, 7, (1 << 31) - 1, 300 << 20))))
        sock.settimeout(0.2)
        for _ in range(10):
            sock.sendall(bytes(65536))
        sock.recv(1)


def other_protocol(me: Neighbour) -> None:
    """HTTP, a TLS hello, SSH on the Kafka port."""
    with me.connect() as sock:
        sock.sendall(
            me.rng.choice(
                (
                    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
                    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
                    b"SSH-2.0-x\r\n",
                )
            )
        )
        sock.settimeout(0.2)
        sock.recv(100)


def malformed_requests(me: Neighbour) -> None:
    """Known and unknown APIs in all versions with bodies that are cut, random, or full of huge counts."""
    with me.connect() as sock:
        sock.settimeout(0.05)
        for _ in range(20):
            body = me.rng.choice(
                (
                    b"",
                    me.rng.randbytes(me.rng.randrange(200)),
                    b"\x7f\xff\xff\xff" * me.rng.randrange(1, 8),
                    b"\xff" * me.rng.randrange(1, 40),
                    b"\xfe\xff\xff\xff\x0f" * 4,
                )
            )
            key = me.rng.choice((PRODUCE, FETCH, METADATA, API_VERSIONS, me.rng.randrange(100), -1, 32767))
            sock.sendall(_frame(key, me.rng.randrange(-1, 20), body))
            with contextlib.suppress(TimeoutError):
                if not sock.recv(65536):
                    return


def slow_loris(me: Neighbour) -> None:
    """Many connections that each send a byte now and then."""
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(me.connect()) for _ in range(CROWD)]
        frame = _frame(METADATA, 1, b"\0" * 500)
        for byte in frame:
            for sock in socks:
                sock.sendall(bytes([byte]))
            if me.stop.wait(0.1):
                return


def half_open(me: Neighbour) -> None:
    """Many connections that say nothing at all."""
    with contextlib.ExitStack() as stack:
        for _ in range(CROWD):
            stack.enter_context(me.connect())
        me.stop.wait(3)


def hang_up(me: Neighbour) -> None:
    """Half a request, then a reset."""
    with me.connect() as sock:
        frame = _frame(API_VERSIONS, 0, b"")
        sock.sendall(frame * 5 + frame[: me.rng.randrange(len(frame))])
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def never_read(me: Neighbour) -> None:
    """Requests without end, and no answer ever taken."""
    with me.connect() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.settimeout(0.3)
        burst = _frame(API_VERSIONS, 0, b"") * 1000
        while not me.stop.is_set():
            sock.sendall(burst)


def hoard_memory(me: Neighbour) -> None:
    """Announce 90 MB on many connections, send a part of it, and stall."""
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(me.connect()) for _ in range(20)]
        for sock in socks:
            sock.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                sock.send(struct.pack(">i", 90 << 20) + bytes(100))
        piece = bytes(1 << 20)
        for _ in range(12):
            for sock in socks:
                with contextlib.suppress(BlockingIOError):
                    sock.send(piece)
            if me.stop.wait(0.1):
                return


def corrupt_batches(me: Neighbour) -> None:
    """Produce requests whose batches are damaged: acks=0, so nothing comes back but the connection's fate."""
    with me.connect() as sock:
        sock.settimeout(0.1)
        for _ in range(10):
            batch = me.rng.randbytes(me.rng.randrange(10, 300))
            name = TOPIC.encode()
            body = (
                struct.pack(">hhii", -1, me.rng.choice((0, 1, -1)), 1000, 1)
                + struct.pack(">h", len(name))
                + name
            )
            body += struct.pack(">iii", 1, me.rng.randrange(-1, PARTITIONS + 1), len(batch)) + batch
            sock.sendall(_frame(PRODUCE, 3, body))
        with contextlib.suppress(TimeoutError):
            sock.recv(65536)


NEIGHBOURS = (
    garbage,
    impossible_length,
    other_protocol,
    malformed_requests,
    slow_loris,
    half_open,
    hang_up,
    never_read,
    hoard_memory,
    corrupt_batches,
)


class GoodClient:
    """A producer that goes on all the time, one record in flight or many, and remembers everything."""

    def __init__(self, bootstrap: str) -> None:
        self.history = History()
        self.errors: list[str] = []
        self.worst_ack_s = 0.0
        self._bootstrap = bootstrap
        self._sent_at: dict[Key, float] = {}

    def _note(self, error: KafkaError) -> None:
        self.errors.append(str(error))

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        now = time.monotonic()
        key, partition, offset = decode(message.value()), message.partition(), message.offset()
        if error is not None:
            self.errors.append(f"delivery failed: {error}")
            return
        assert key is not None
        assert partition is not None
        assert offset is not None
        self.history.acks.append(Ack(key, partition, offset, now))
        self.worst_ack_s = max(self.worst_ack_s, now - self._sent_at[key])

    def work(self, until: threading.Event) -> None:
        producer = Producer(
            {
                "bootstrap.servers": self._bootstrap,
                "enable.idempotence": True,
                "linger.ms": 1,
                "error_cb": self._note,
            }
        )
        number = 0
        while not until.is_set():
            key = Key("good", number)
            self._sent_at[key] = time.monotonic()
            partition = number % PARTITIONS
            self.history.sends.append(Send(key, partition, self._sent_at[key]))
            producer.produce(TOPIC, encode(key), partition=partition, on_delivery=self._delivered)
            producer.poll(0.002)
            number += 1
        assert producer.flush(30) == 0, "the good client is stuck"

    def read_back(self) -> None:
        consumer = Consumer(
            {
                "bootstrap.servers": self._bootstrap,
                "group.id": "unused",
                "enable.auto.commit": False,
                "error_cb": self._note,
            }
        )
        consumer.assign([TopicPartition(TOPIC, p, OFFSET_BEGINNING) for p in range(PARTITIONS)])
        wanted = sum(end_offsets(consumer, PARTITIONS).values())
        deadline = time.monotonic() + 30
        while len(self.history.final) < wanted and time.monotonic() < deadline:
            for message in consumer.consume(1000, timeout=0.5):
                partition, offset = message.partition(), message.offset()
                assert message.error() is None, message.error()
                assert partition is not None
                assert offset is not None
                self.history.final.append(Read(partition, offset, decode(message.value())))
        consumer.close()


def _memory_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmHWM")


def _open_sockets(pid: int) -> int:
    count = 0
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            count += str(link.readlink()).startswith("socket:")
    return count


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevCluster]:
    with DevCluster(tmp_path_factory.mktemp("neighbours")) as running:
        create_topic(running.bootstrap, PARTITIONS)
        yield running


def test_a_good_client_does_not_notice_bad_neighbours(cluster: DevCluster) -> None:
    host, _, port = cluster.bootstrap.partition(",")[0].rpartition(":")
    pid = cluster.wait_for_broker()
    memory_before, sockets_before = _memory_bytes(pid), _open_sockets(pid)
    client = GoodClient(cluster.bootstrap)
    stop = threading.Event()
    worker = threading.Thread(target=client.work, args=(stop,))
    neighbours = [Neighbour((host, int(port)), seed, stop) for seed in range(len(NEIGHBOURS))]
    threads = [
        threading.Thread(target=neighbour.run, args=(behave,))
        for neighbour, behave in zip(neighbours, NEIGHBOURS, strict=True)
    ]
    for thread in (worker, *threads):
        thread.start()
    time.sleep(DURATION_S)
    stop.set()
    for thread in (worker, *threads):
        thread.join(60)
        assert not thread.is_alive()
    client.read_back()

    assert cluster.broker_pid() == pid, cluster.tail()
    verdict = check(client.history)
    assert verdict.ok, str(verdict)
    assert verdict.acked == verdict.sent == verdict.read
    assert verdict.acked > 200
    assert client.errors == []
    assert client.worst_ack_s < WORST_ACK_S
    assert all(neighbour.rounds > 0 for neighbour in neighbours)
    assert _memory_bytes(pid) - memory_before < MEMORY_GROWTH_BYTES
    deadline = time.monotonic() + 15
    while _open_sockets(pid) > sockets_before + 5 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert _open_sockets(pid) <= sockets_before + 5, "connections of bad neighbours stay open"
