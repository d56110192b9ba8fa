"""Answers with file ranges: sendfile, resume after a full socket, broken clients and broken files."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from tests.unit.net.support import ReadOnlyFile, Serving, file_range, frame, run, serving, until

from strandline_broker.net.metrics import CloseReason
from strandline_broker.net.outbox import COPIED_SLICE_BYTES


@pytest.fixture
def content() -> bytes:
    return os.urandom(12_000_000)


@pytest.fixture
def log_file(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "segment.log"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("descriptor", [True, False])
def test_file_ranges_of_all_sizes_between_other_answers(
    log_file: Path, content: bytes, descriptor: bool
) -> None:
    async def scenario() -> None:
        file = ReadOnlyFile(log_file, descriptor=descriptor)
        async with serving() as here:
            ranges = [(0, 1), (5, 100), (9, COPIED_SLICE_BYTES), (3, COPIED_SLICE_BYTES + 1), (7, 300_000)]
            for offset, length in ranges:
                here.handler.files[b"%d" % offset] = file_range(file, offset, length)
            here.handler.files[b"0 bytes"] = file_range(file, 0, 0)
            client = await here.client()
            data = b"".join(frame(b"f%d" % offset) + frame(b"e between") for offset, _ in ranges)
            await client.send(frame(b"f0 bytes") + data * 3)
            assert await client.answer() == b"ok"
            for offset, length in ranges * 3:
                assert await client.answer() == content[offset : offset + length] + b"ok"
                assert await client.answer() == b"e between"
            assert here.server.metrics.bytes_out > 900_000
            (connection,) = here.handler.connections.values()
            assert connection._outbox._files == 0
        file.close()

    run(scenario)


def test_a_slow_reader_of_a_large_range_gets_all_of_it(log_file: Path, content: bytes) -> None:
    async def scenario() -> None:
        file = ReadOnlyFile(log_file)
        async with serving(send_quantum_bytes=100_000) as here:
            here.handler.files[b""] = file_range(file, 1, len(content) - 1)
            slow = await here.client(receive_buffer=8192)
            other = await here.client()
            await slow.send(frame(b"e before") + frame(b"f") + frame(b"e after"))
            assert await slow.answer() == b"e before"
            for _ in range(10):
                assert await other.ask(b"e") == b"e"
            assert await slow.answer() == content[1:] + b"ok"
            assert await slow.answer() == b"e after"
        file.close()

    run(scenario)


async def _lost(here: Serving, count: int) -> None:
    await until(lambda: len(here.handler.lost) == count)


def test_reset_in_the_middle_of_a_range(log_file: Path, content: bytes) -> None:
    async def scenario() -> None:
        file = ReadOnlyFile(log_file)
        async with serving() as here:
            here.handler.files[b""] = file_range(file, 0, len(content))
            for count in range(1, 6):
                client = await here.client(receive_buffer=8192)
                await client.send(frame(b"f") * 3)
                await asyncio.get_running_loop().sock_recv(client.sock, 1000)
                client.reset()
                await _lost(here, count)
            assert here.server.metrics.closed[CloseReason.BROKEN] == 5
            good = await here.client()
            assert await good.ask(b"f") == content + b"ok"
        file.close()

    run(scenario)


@pytest.mark.parametrize("length", [100, 200_000])
def test_a_file_that_is_shorter_than_promised_ends_the_connection(
    log_file: Path, content: bytes, length: int
) -> None:
    async def scenario() -> None:
        file = ReadOnlyFile(log_file)
        async with serving() as here:
            here.handler.files[b""] = file_range(file, len(content) - length + 1, length)
            client, good = await here.client(), await here.client()
            await client.send(frame(b"f"))
            assert await client.ended()
            assert here.server.metrics.closed[CloseReason.SEND_FAILED] == 1
            assert await good.ask(b"e") == b"e"
        file.close()

    run(scenario)


def test_pending_answers_with_ranges_keep_their_order(log_file: Path, content: bytes) -> None:
    async def scenario() -> None:
        file = ReadOnlyFile(log_file)
        async with serving() as here:
            here.handler.files[b""] = file_range(file, 0, 100_000)
            client = await here.client()
            await client.send(frame(b"p1") + frame(b"f") + frame(b"p2"))
            await until(lambda: len(here.handler.pendings) == 2)
            (first, _), (second, _) = here.handler.pendings
            second.complete([frame(b"xy")[:5], b"", frame(b"xy")[5:]])
            first.complete([b"\x00\x01\x86\xa0", file_range(file, 7, 100_000)])
            assert await client.answer() == content[7:100_007]
            assert await client.answer() == content[:100_000] + b"ok"
            assert await client.answer() == b"xy"
        file.close()

    run(scenario)
