"""TLS as a `Stream` on top of another `Stream`: the connection code is the same with and without encryption.

Ciphertext goes through memory BIOs, so records are read many at a time (one recv, not two per record), and
the size of what is encrypted but unsent is bounded. File ranges are read into one reusable buffer and
encrypted from there.

Created by `net.server` (and by clients: give `server_hostname`).
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Sequence
from typing import Any

from strandline_broker.net.sniff import is_tls
from strandline_broker.seams.disk import Buffer, File
from strandline_broker.seams.network import Address, Stream

# Plaintext encrypted at one go, and thereby the bound of ciphertext that waits for the socket. Small enough
# that its memory comes from the heap and is not mapped and unmapped every time (malloc's limit for that is
# 128 KiB).
_CHUNK_BYTES = 64 * 1024
_RECEIVE_BYTES = 256 * 1024
_NOTHING = memoryview(b"")


class NotTlsError(OSError):
    """The client does not speak TLS."""


class TlsScratch:
    """Buffers that all TLS streams of a loop share, for received ciphertext and for file contents."""

    __slots__ = ("received", "sending")

    def __init__(self) -> None:
        self.received = memoryview(bytearray(_RECEIVE_BYTES))
        self.sending = memoryview(bytearray(_CHUNK_BYTES))


class TlsStream:
    """See `Stream`. Call `handshake` first; reading and writing work from its completion on."""

    __slots__ = (
        "_again",
        "_cipher",
        "_closed",
        "_handshake_done",
        "_incoming",
        "_loop",
        "_outgoing",
        "_raw",
        "_reader",
        "_scratch",
        "_server_side",
        "_ssl",
        "_started",
        "_watching",
        "_writer",
        "peer",
    )

    def __init__(
        self,
        raw: Stream,
        context: ssl.SSLContext,
        scratch: TlsScratch,
        loop: asyncio.AbstractEventLoop,
        *,
        server_hostname: str | None = None,
    ) -> None:
        self._raw = raw
        self._scratch = scratch
        self._loop = loop
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._server_side = server_hostname is None
        self._ssl = context.wrap_bio(
            self._incoming, self._outgoing, server_side=self._server_side, server_hostname=server_hostname
        )
        self._cipher = _NOTHING  # records that the socket did not take yet
        self._reader: Callable[[], None] | None = None
        self._writer: Callable[[], None] | None = None
        self._handshake_done: Callable[[OSError | None], None] | None = None
        self._again: asyncio.Handle | None = None
        self._started = False
        self._watching = False
        self._closed = False
        self.peer: Address = raw.peer

    @property
    def unsent(self) -> int:
        """See `Stream.unsent`."""
        return len(self._cipher)

    @property
    def peer_certificate(self) -> dict[str, Any] | None:
        """The verified certificate of the other side as `ssl` describes it, or None."""
        return self._ssl.getpeercert()

    # --- handshake ------------------------------------------------------------------------------------------

    def handshake(self, done: Callable[[OSError | None], None]) -> None:
        """Call `done` once with None, or with why there will be no TLS (NotTlsError, ssl.SSLError, OSError).

        The caller limits the time, and closes the stream after an error.
        """
        self._handshake_done = done
        self._raw.set_reader(self._on_handshake)
        if not self._server_side:
            self._on_handshake()

    def _on_handshake(self) -> None:
        error: OSError | None = None
        try:
            if self._started or self._server_side:
                self._pull()
            self._started = True
            self._ssl.do_handshake()
        except (BlockingIOError, InterruptedError):
            return
        except ssl.SSLWantReadError:
            error = self._try_push()
            if error is None:
                return
        except OSError as failure:
            error = failure
        error = self._try_push() or error  # also an alert that says why
        done = self._handshake_done
        if done is not None:
            self._handshake_done = None
            self._raw.set_reader(None)
            done(error)

    def _try_push(self) -> OSError | None:
        try:
            self._push()
        except OSError as error:
            return error
        return None

    # --- reading --------------------------------------------------------------------------------------------

    def _pull(self) -> None:
        """Move received ciphertext into the BIO. Raises BlockingIOError when there is none."""
        scratch = self._scratch.received
        received = self._raw.recv_into(scratch)
        if not received:
            self._incoming.write_eof()
            return
        if not self._started and self._server_side and not is_tls(scratch[0]):
            raise NotTlsError("a client without TLS on a TLS listener: check security.protocol of the client")
        self._incoming.write(scratch[:received])

    def recv_into(self, buffer: memoryview, /) -> int:
        """See `Stream.recv_into`; fills `buffer` from several records."""
        room = len(buffer)
        filled = 0
        while filled < room:
            try:
                received: int = self._ssl.read(room - filled, buffer[filled:])  # type: ignore[assignment]  # bytes when given no buffer
            except ssl.SSLWantReadError:
                if self._outgoing.pending and not self._push() and self._outgoing.pending > _RECEIVE_BYTES:
                    # Answers to key updates, which nobody reads.
                    raise OSError("the other side sends TLS messages and does not read the answers") from None
                if filled:
                    return filled
                self._pull()
                continue
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return filled  # the next call comes here again, with nothing before it
            if not received:
                return filled
            filled += received
        if self._ssl.pending() or self._incoming.pending:
            self._read_again()
        return filled

    def _read_again(self) -> None:
        """Call the reader although the socket may have nothing more: the rest is in here."""
        if self._again is None and self._reader is not None:
            self._again = self._loop.call_soon(self._on_again)

    def _on_again(self) -> None:
        self._again = None
        if self._reader is not None and not self._closed:
            self._reader()

    def set_reader(self, callback: Callable[[], None] | None, /) -> None:
        """See `Stream.set_reader`."""
        self._reader = callback
        self._raw.set_reader(callback)
        if callback is not None and (self._ssl.pending() or self._incoming.pending):
            self._read_again()

    # --- writing --------------------------------------------------------------------------------------------

    def send(self, parts: Sequence[Buffer], /, *, more: bool = False) -> int:
        """See `Stream.send`; takes at most 64 KiB, joined so that small parts share a record."""
        del more  # records are never smaller for what follows
        if len(self._cipher) and not self._push():
            raise BlockingIOError
        room = _CHUNK_BYTES
        pieces: list[Buffer] = []
        for part in parts:
            piece = part if len(part) <= room else memoryview(part)[:room]
            pieces.append(piece)
            room -= len(piece)
            if not room:
                break
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if len(data):
            self._encrypt(data)
        return _CHUNK_BYTES - room

    def sendfile(self, file: File, offset: int, count: int, /) -> int:
        """See `Stream.sendfile`; reads only what is encrypted at once."""
        if len(self._cipher) and not self._push():
            raise BlockingIOError
        buffer = self._scratch.sending[: min(count, _CHUNK_BYTES)]
        length = file.pread_into(buffer, offset)
        if length:
            self._encrypt(buffer[:length])
        return length

    def _encrypt(self, data: Buffer) -> None:
        written = self._ssl.write(data)
        assert written == len(data), "a memory BIO takes everything"
        self._push()

    def _push(self) -> bool:
        """Give ciphertext to the socket; return whether it took all. The rest is sent when it can be."""
        while True:
            if not len(self._cipher):
                if not self._outgoing.pending:
                    break
                self._cipher = memoryview(self._outgoing.read())
            try:
                sent = self._raw.send((self._cipher,))
            except (BlockingIOError, InterruptedError):
                self._watch(writable=True)
                return False
            self._cipher = self._cipher[sent:]
        if self._writer is None:
            self._watch(writable=False)
        return True

    def _watch(self, *, writable: bool) -> None:
        """Ask the raw stream to tell when it can be written to, or not to, if it does not do so already."""
        if writable != self._watching:
            self._watching = writable
            self._raw.set_writer(self._on_writable if writable else None)

    def _on_writable(self) -> None:
        try:
            done = self._push()
        except OSError:
            # Broken: whoever reads or writes next is told by the socket itself.
            self._cipher = _NOTHING
            self._watch(writable=False)
            done = True
        if done and self._writer is not None:
            self._writer()

    def set_writer(self, callback: Callable[[], None] | None, /) -> None:
        """See `Stream.set_writer`."""
        self._writer = callback
        if callback is not None:
            self._watch(writable=True)
        elif not len(self._cipher):
            self._watch(writable=False)

    # --- the end --------------------------------------------------------------------------------------------

    def _say_goodbye(self) -> None:
        try:
            self._ssl.unwrap()
        except OSError:
            pass  # it wants the other side's goodbye, which nobody waits for
        self._try_push()

    def shutdown_write(self) -> None:
        """See `Stream.shutdown_write`."""
        self._say_goodbye()
        if not len(self._cipher):
            self._raw.shutdown_write()

    def close(self) -> None:
        """See `Stream.close`."""
        if self._closed:
            return
        self._closed = True
        if self._again is not None:
            self._again.cancel()
        self._handshake_done = None
        self._say_goodbye()
        self._raw.close()
