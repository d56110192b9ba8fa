"""Answers of one connection on their way out: coalesced buffers, and file ranges through sendfile.

Used by `net.connection` only.
"""

from __future__ import annotations

from strandline_broker.net.handler import Part, Response
from strandline_broker.seams.disk import Buffer, FileSlice
from strandline_broker.seams.network import Stream

# sendmsg(2) takes 1,024 parts (IOV_MAX).
_MAX_PARTS = 1000
# Below this a file range is cheaper read and sent together with its neighbours than through a sendfile of its
# own.
COPIED_SLICE_BYTES = 32 * 1024
_MAX_GATHERED_BYTES = 1024 * 1024


class BrokenSliceError(Exception):
    """The file behind an answer ended early or cannot be read, so the stream cannot go on."""


def response_size(response: Response) -> int:
    """Return the bytes of an answer."""
    if isinstance(response, bytes):
        return len(response)
    return sum(map(len, response))


class Outbox:
    """Parts in sending order. `size` counts the bytes of all parts, file ranges included."""

    __slots__ = ("_files", "parts", "size")

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.size = 0
        self._files = 0

    def add(self, response: Response) -> None:
        """Append an answer."""
        if isinstance(response, bytes):
            self.parts.append(response)
            self.size += len(response)
            return
        for part in response:
            length = len(part)
            if length:
                self.parts.append(part)
                self.size += length
                if type(part) is FileSlice:
                    self._files += 1

    def clear(self) -> None:
        """Drop everything."""
        self.parts = []
        self.size = 0
        self._files = 0

    def send(self, stream: Stream, quantum: int) -> bool:
        """Send what the stream takes, up to about `quantum` bytes; return whether everything is gone.

        Raises OSError when the connection broke and BrokenSliceError when an answer cannot be completed.
        """
        parts = self.parts
        left = quantum
        try:
            if not self._files and 0 < len(parts) <= _MAX_PARTS:
                sent = stream.send(parts)  # type: ignore[arg-type]  # no file ranges among them
                if sent == self.size:
                    parts.clear()
                    self.size = 0
                else:
                    self._drop(sent)
                    left -= sent
            while parts and left > 0:
                left -= self._send_some(stream)
        except BlockingIOError:
            return False
        return not parts and not stream.unsent

    def _send_some(self, stream: Stream) -> int:
        """Send the buffers up to the next large file range, or some of that range; return the bytes sent."""
        head = self.parts[0]
        if type(head) is FileSlice and head.length > COPIED_SLICE_BYTES:
            return self._send_file(stream, head)
        buffers, more = self._gather()
        sent = stream.send(buffers, more=more)
        self._drop(sent)
        return sent

    def _send_file(self, stream: Stream, head: FileSlice) -> int:
        try:
            sent = stream.sendfile(head.file, head.offset, head.length)
        except BlockingIOError:
            raise
        except OSError as error:
            if isinstance(error, ConnectionError | TimeoutError):
                raise
            raise BrokenSliceError(f"cannot send from {head.file.path}: {error}") from error
        if sent <= 0:
            raise BrokenSliceError(f"{head.file.path} ends before offset {head.offset + head.length}")
        self._drop(sent)
        return sent

    def _gather(self) -> tuple[list[Buffer], bool]:
        """Return the buffers to send in one call (small file ranges read), and whether more follows."""
        parts = self.parts
        buffers: list[Buffer] = []
        gathered = 0
        for index, part in enumerate(parts):
            if type(part) is FileSlice:
                if part.length > COPIED_SLICE_BYTES:
                    return buffers, True
                part = parts[index] = _read_slice(part)
                self._files -= 1
            buffers.append(part)  # type: ignore[arg-type]  # file ranges were replaced above
            gathered += len(part)
            if len(buffers) >= _MAX_PARTS or gathered >= _MAX_GATHERED_BYTES:
                return buffers, index + 1 < len(parts)
        return buffers, False

    def _drop(self, sent: int) -> None:
        """Remove `sent` bytes from the front."""
        parts = self.parts
        self.size -= sent
        done = 0
        for part in parts:
            length = len(part)
            if sent < length:
                break
            sent -= length
            done += 1
            if type(part) is FileSlice:
                self._files -= 1
        del parts[:done]
        if sent:
            head = parts[0]
            if type(head) is FileSlice:
                parts[0] = FileSlice(head.file, head.offset + sent, head.length - sent)
            else:
                parts[0] = memoryview(head)[sent:]  # type: ignore[arg-type]


def _read_slice(part: FileSlice) -> bytes:
    try:
        data = part.read()
    except OSError as error:
        raise BrokenSliceError(f"cannot read {part.file.path}: {error}") from error
    if len(data) != part.length:
        raise BrokenSliceError(f"{part.file.path} ends before offset {part.offset + part.length}")
    return data
