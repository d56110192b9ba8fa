"""The network seam: non-blocking byte streams with readiness callbacks.

`LocalNetwork` (local_network.py) is the real one, on asyncio's readers and writers; a simulator brings its
own. The shape is that of a non-blocking socket rather than that of a transport, because a broker decides for
itself into which memory it reads, when it stops reading, and how it coalesces what it writes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from strandline_broker.seams.disk import Buffer, File

Address = tuple[str, int]


class Stream(Protocol):
    """One connected byte stream, used by one thread, the loop's.

    Readiness is level-triggered: a reader callback comes again as long as there is something to read (end of
    stream and errors included), a writer callback as long as something could be sent.
    """

    @property
    def peer(self) -> Address:
        """Return the address and port of the other side; IPv4-mapped IPv6 addresses are given as IPv4."""
        ...

    @property
    def unsent(self) -> int:
        """Return the bytes that were accepted for sending and still wait inside this object (TLS records).

        The stream sends them on its own; a set writer is called when they are gone.
        """
        ...

    def recv_into(self, buffer: memoryview, /) -> int:
        """Read what is there into `buffer` (never empty); 0 is the end of the stream.

        Raises BlockingIOError when there is nothing to read, another OSError when the connection broke.
        """
        ...

    def send(self, parts: Sequence[Buffer], /, *, more: bool = False) -> int:
        """Send the start of the concatenated `parts` (at least one, at most 1,024) and return how many bytes.

        `more` says that bytes follow at once, so that no small packet is sent before them. Raises
        BlockingIOError when nothing can be sent now, another OSError when the connection broke.
        """
        ...

    def sendfile(self, file: File, offset: int, count: int, /) -> int:
        """Send up to `count` bytes of `file` from `offset`; 0: the file ends there. Errors as `send`."""
        ...

    def set_reader(self, callback: Callable[[], None] | None, /) -> None:
        """Call `callback` whenever there is something to read; None stops that."""
        ...

    def set_writer(self, callback: Callable[[], None] | None, /) -> None:
        """Call `callback` whenever something can be sent; None stops that."""
        ...

    def shutdown_write(self) -> None:
        """Tell the other side that nothing more comes; reading goes on. Never raises."""
        ...

    def close(self) -> None:
        """Drop both directions and all callbacks; idempotent, never raises."""
        ...


class ListenSocket(Protocol):
    """A bound, accepting socket (or several of them, where a host name has several addresses)."""

    @property
    def host(self) -> str:
        """Return the address that is bound."""
        ...

    @property
    def port(self) -> int:
        """Return the port that is bound: the one asked for, or the one chosen for 0."""
        ...

    def close(self) -> None:
        """Stop accepting; established streams live on. Idempotent."""
        ...


class Network(Protocol):
    """Where streams come from."""

    async def listen(
        self,
        host: str,
        port: int,
        accepted: Callable[[Stream], None],
        *,
        backlog: int = 1024,
        failed: Callable[[OSError], None] | None = None,
    ) -> ListenSocket:
        """Bind and call `accepted` for every new connection, in the loop's thread.

        `host` is an address, a name, or "" for all addresses; `port` 0 picks a free one. `failed` is told of
        errors while accepting (such as EMFILE), after which accepting goes on by itself. Raises OSError when
        the address cannot be bound.
        """
        ...

    async def connect(self, host: str, port: int) -> Stream:
        """Connect to the first address of `host` that answers. Raises OSError; cancel it to limit time."""
        ...
