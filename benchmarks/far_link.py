"""A link between clients and a server beside them that makes it far: so many bytes per second back, a delay either way.

`python -m benchmarks.far_link HOST PORT` prints the port of 127.0.0.1 it listens on, and ends when its standard input does.
All connections share the link. They take turns piece by piece, as flows on a network do about: none waits longer than the
others need for one piece each. Requests are delayed but not throttled, since they are small and no upload is measured.

Not here: losses, slow start, the round trip that a new connection takes. Clients keep their connections.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

HOST = "127.0.0.1"
BYTES_PER_S = 125_000_000
"""1 Gbit/s."""
ROUND_TRIP_S = 0.010
BURST_S = 0.005
"""How much of the link's time may be made up for: timers of an event loop are late by a millisecond, and by more where
processors are busy."""
PIECE_BYTES = 128 << 10
"""About one millisecond of the link."""
_PIECES_UNDER_WAY = 64
"""Of one connection and direction; 10 fill the link for half a round trip."""


class Passage(NamedTuple):
    """When the last byte of a piece has left the sender, and when it arrives, in seconds of the caller's clock."""

    left_s: float
    arrives_s: float


class Link:
    """One direction: a token bucket that is always asked in the order in which bytes are sent. Pure.

    `bytes_per_s` may be infinite. `burst_s`: the time for which an idle link saves up tokens.
    """

    def __init__(self, bytes_per_s: float, delay_s: float, burst_s: float = BURST_S) -> None:
        self._bytes_per_s = bytes_per_s
        self._delay_s = delay_s
        self._burst_s = burst_s
        self._free_s = float("-inf")

    def send(self, size_bytes: int, now_s: float) -> Passage:
        """Return when a piece passes, behind everything that was sent before."""
        self._free_s = max(self._free_s, now_s - self._burst_s) + size_bytes / self._bytes_per_s
        left_s = max(self._free_s, now_s)
        return Passage(left_s, left_s + self._delay_s)


async def serve(listener: socket.socket, address: tuple[str, int], there: Link, back: Link) -> None:
    """Pass on what comes over each connection that `listener` takes, until cancelled. Raises OSError of the listener."""
    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as connections:
        while True:
            client, _ = await loop.sock_accept(listener)
            connections.create_task(_connection(client, address, there, back))


async def _connection(client: socket.socket, address: tuple[str, int], there: Link, back: Link) -> None:
    with client, socket.socket(socket.AF_INET, socket.SOCK_STREAM) as server:
        for one in (client, server):
            one.settimeout(0)
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            await asyncio.get_running_loop().sock_connect(server, address)
            async with asyncio.TaskGroup() as ways:
                ways.create_task(_pass_on(client, server, there))
                ways.create_task(_pass_on(server, client, back))
        except* OSError as broken:
            # Both sides see their connection closed, as on any network.
            _, others = broken.split(_is_broken_off)
            if others is not None:
                print(f"connection to {address}: {others.exceptions}", file=sys.stderr)


def _is_broken_off(error: BaseException) -> bool:
    """Whether an end just went away: the usual end of a connection that a client had in stock."""
    return isinstance(error, ConnectionError) or (
        isinstance(error, OSError) and error.errno == errno.ENOTCONN
    )


async def _pass_on(source: socket.socket, target: socket.socket, link: Link) -> None:
    """Move bytes until `source` has no more, and say so to `target`. At most one piece waits for the link."""
    loop = asyncio.get_running_loop()
    under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_PIECES_UNDER_WAY)

    async def deliver() -> None:
        data = b"..."
        while data:
            arrives_s, data = await under_way.get()
            await _until(arrives_s)
            await loop.sock_sendall(target, data)
        target.shutdown(socket.SHUT_WR)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(deliver())
        data = b"..."
        while data:
            data = await loop.sock_recv(source, PIECE_BYTES)
            passage = link.send(len(data), loop.time())
            await under_way.put((passage.arrives_s, data))
            await _until(passage.left_s)


async def _until(time_s: float) -> None:
    wait_s = time_s - asyncio.get_running_loop().time()
    if wait_s > 0:
        await asyncio.sleep(wait_s)


@contextmanager
def process(host: str, port: int) -> Iterator[int]:
    """Have a link to a server in a process of its own for a while; yields its port. Raises OSError if there is none."""
    command = [sys.executable, "-m", "benchmarks.far_link", host, str(port)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as link:
        assert link.stdin is not None, "it is a pipe"
        assert link.stdout is not None, "it is a pipe"
        try:
            line = link.stdout.readline()
            if not line:
                raise OSError(f"no link to {host}:{port}: exit status {link.wait()}")
            yield int(line)
        finally:
            link.stdin.close()


async def _run(host: str, port: int) -> None:
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), over.set)
    there, back = Link(float("inf"), ROUND_TRIP_S / 2), Link(BYTES_PER_S, ROUND_TRIP_S / 2)
    with socket.create_server((HOST, 0)) as listener:
        listener.settimeout(0)
        print(listener.getsockname()[1], flush=True)
        serving = loop.create_task(serve(listener, (host, port), there, back))
        ended = loop.create_task(over.wait())
        await asyncio.wait((serving, ended), return_when=asyncio.FIRST_COMPLETED)
        ended.cancel()
        if serving.done():
            serving.result()
        serving.cancel()


if __name__ == "__main__":
    asyncio.run(_run(sys.argv[1], int(sys.argv[2])))
