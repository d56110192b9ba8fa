"""TLS listeners with real sockets: traffic, reload, client certificates, and clients without TLS."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import ssl
import struct
from pathlib import Path
from typing import cast

import pytest
from tests.unit.net.certificates import Authority
from tests.unit.net.support import ReadOnlyFile, file_range, frame, run, serving, turns, until

from strandline_broker.net.metrics import CloseReason
from strandline_broker.net.tls import TlsConfig, principal_of
from strandline_broker.net.tls_stream import TlsScratch, TlsStream
from strandline_broker.seams.local_network import LocalNetwork


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def config(authority: Authority) -> TlsConfig:
    return authority.issue("server", "broker-0")


class TlsClient:
    """A client on asyncio's own TLS, so that ours is tested against other machinery."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(
        cls,
        port: int,
        authority: Authority,
        *,
        version: ssl.TLSVersion | None = None,
        own: TlsConfig | None = None,
    ) -> TlsClient:
        context = ssl.create_default_context(cafile=str(authority.ca_path))
        if version is not None:
            context.minimum_version = context.maximum_version = version
        if own is not None:
            context.load_cert_chain(own.cert_path, own.key_path)
        return cls(*await asyncio.open_connection("127.0.0.1", port, ssl=context, limit=1 << 20))

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self) -> bytes:
        (size,) = struct.unpack(">i", await self.reader.readexactly(4))
        return await self.reader.readexactly(size)

    async def ask(self, body: bytes) -> bytes:
        await self.send(frame(body))
        return await self.answer()

    def certificate_serial(self) -> int:
        certificate = self.writer.get_extra_info("peercert")
        return int(certificate["serialNumber"], 16)

    async def close(self) -> None:
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except OSError:
            pass


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_requests_of_all_kinds_and_sizes(
    authority: Authority, config: TlsConfig, version: ssl.TLSVersion
) -> None:
    async def scenario() -> None:
        async with serving(tls=config) as here:
            client = await TlsClient.connect(here.port, authority, version=version)
            assert await client.ask(b"e hello") == b"e hello"
            await client.send(b"".join(frame(b"e%d" % number) for number in range(500)))
            assert [await client.answer() for _ in range(500)] == [b"e%d" % number for number in range(500)]
            await client.send(frame(b"p1") + frame(b"m2") + frame(b"e3"))
            await until(lambda: len(here.handler.pendings) == 2)
            here.handler.complete_all()
            assert [await client.answer() for _ in range(3)] == [b"p1", b"m2", b"e3"]
            for size in (1, 16_383, 16_384, 16_385, 65_532, 65_533, 300_000, 5_000_000):
                body = b"e" + os.urandom(size - 1)
                sending = asyncio.create_task(client.send(frame(body) + frame(b"e after")))
                assert await client.answer() == body
                assert await client.answer() == b"e after"
                await sending
            await client.close()
            await until(lambda: here.handler.lost)

    run(scenario)


def test_file_ranges(authority: Authority, config: TlsConfig, tmp_path: Path) -> None:
    content = os.urandom(3_000_000)
    (tmp_path / "log").write_bytes(content)

    async def scenario() -> None:
        file = ReadOnlyFile(tmp_path / "log")
        async with serving(tls=config) as here:
            here.handler.files[b""] = file_range(file, 11, 2_900_000)
            here.handler.files[b"short"] = file_range(file, 2_000_000, 1_000_001)
            client = await TlsClient.connect(here.port, authority)
            await client.send(frame(b"e before") + frame(b"f") + frame(b"e after"))
            assert await client.answer() == b"e before"
            assert await client.answer() == content[11:2_900_011] + b"ok"
            assert await client.answer() == b"e after"
            await client.send(frame(b"fshort"))
            with pytest.raises((asyncio.IncompleteReadError, OSError)):
                await client.answer()
            assert here.server.metrics.closed[CloseReason.SEND_FAILED] == 1
            await client.close()
        file.close()

    run(scenario)


def test_a_client_that_never_reads_is_bounded(authority: Authority, config: TlsConfig) -> None:
    async def scenario() -> None:
        async with serving(tls=config, output_backlog_bytes=1 << 20) as here:
            here.handler.big = frame(b"b" * 100_000)
            client = await TlsClient.connect(here.port, authority)
            cast(asyncio.Transport, client.writer.transport).pause_reading()
            sending = asyncio.create_task(client.send(frame(b"b") * 1_000))
            await until(lambda: here.server.metrics.backlog_pauses > 0)
            (connection,) = here.handler.connections.values()
            seen = -1
            while seen != len(here.handler.frames):
                seen = len(here.handler.frames)
                await turns(50)
            assert connection._outbox.size <= (1 << 20) + 100_004
            assert len(here.handler.frames) < 500
            stream = cast(TlsStream, connection._stream)
            assert stream.unsent + stream._outgoing.pending < 200_000
            cast(asyncio.Transport, client.writer.transport).resume_reading()
            for _ in range(1_000):
                assert len(await client.answer()) == 100_000
            await sending
            await client.close()

    run(scenario)


def test_reload_changes_the_certificate_of_new_connections_only(
    authority: Authority, config: TlsConfig
) -> None:
    async def scenario() -> None:
        async with serving(tls=config, certificate_check_interval_ms=50) as here:
            old = await TlsClient.connect(here.port, authority)
            first = old.certificate_serial()
            authority.issue("server", "broker-0")
            await until(lambda: here.server.metrics.certificate_reloads == 1)
            new = await TlsClient.connect(here.port, authority)
            assert new.certificate_serial() != first
            assert await old.ask(b"e still here") == b"e still here"
            assert await new.ask(b"e") == b"e"
            await old.close()
            await new.close()

    run(scenario)


def test_broken_certificate_files_keep_the_old_one(
    authority: Authority, config: TlsConfig, caplog: pytest.LogCaptureFixture
) -> None:
    other = authority.issue("other", "broker-0")

    async def scenario() -> None:
        async with serving(tls=config) as here:
            shutil.copy(other.cert_path, config.cert_path)  # the certificate is new, the key is not yet
            here.server.reload_certificates()
            here.server.reload_certificates()
            os.unlink(config.key_path)  # noqa: PTH108
            here.server.reload_certificates()
            assert here.server.metrics.certificate_reload_failures == 3
            client = await TlsClient.connect(here.port, authority)
            first = client.certificate_serial()
            assert await client.ask(b"e") == b"e"
            shutil.copy(other.key_path, config.key_path)
            here.server.reload_certificates()
            assert here.server.metrics.certificate_reloads == 1
            new = await TlsClient.connect(here.port, authority)
            assert new.certificate_serial() != first
            await client.close()
            await new.close()

    run(scenario)
    assert "keeps its certificate" in caplog.text


def test_a_missing_certificate_fails_at_the_start(config: TlsConfig) -> None:
    Path(config.key_path).write_text("no key")

    async def scenario() -> None:
        with pytest.raises(ssl.SSLError):
            async with serving(tls=config):
                pass

    run(scenario)


async def _ask_once(port: int, authority: Authority, own: TlsConfig | None) -> None:
    client = await TlsClient.connect(port, authority, own=own)
    try:
        await client.ask(b"e")
    finally:
        await client.close()


def test_client_certificates_give_the_principal(authority: Authority, tmp_path: Path) -> None:
    async def scenario() -> None:
        config = authority.issue("server", "broker-0", client_ca=authority.ca_path)
        async with serving(tls=config) as here:
            own = authority.issue("client", "billing, west", "Example #1")
            client = await TlsClient.connect(here.port, authority, own=own)
            assert await client.ask(b"e") == b"e"
            (connection,) = here.handler.connections.values()
            assert connection.principal == "User:CN=billing\\, west,O=Example #1"
            assert connection.listener.tls
            # Without a certificate, or with a stranger's, there is no connection.
            stranger = Authority(tmp_path, "stranger").issue("stranger-client", "billing")
            for wrong in (None, stranger):
                with pytest.raises((OSError, asyncio.IncompleteReadError)):
                    await _ask_once(here.port, authority, wrong)
            await until(lambda: here.server.metrics.closed[CloseReason.TLS_FAILED] == 2)
            assert len(here.handler.connections) == 1
            assert await client.ask(b"e") == b"e"
            await client.close()

    run(scenario)


def test_a_plain_client_on_a_tls_listener_gets_a_clear_reason(
    authority: Authority, config: TlsConfig, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with serving(tls=config) as here:
            good = await TlsClient.connect(here.port, authority)
            plain = await here.client()
            await plain.send(frame(b"e I speak Kafka"))
            assert await plain.ended()
            assert here.server.metrics.closed[CloseReason.PLAIN_ON_TLS] == 1
            assert not here.handler.frames
            assert await good.ask(b"e") == b"e"
            await good.close()

    run(scenario)
    assert "a client without TLS on a TLS listener" in caplog.text


def test_garbage_and_silence_in_the_handshake(authority: Authority, config: TlsConfig) -> None:
    async def scenario() -> None:
        async with serving(tls=config, tls_handshake_timeout_ms=200) as here:
            garbage = await here.client()
            await garbage.send(b"\x16\x03\x01\x00\x05" + b"\xff" * 500)
            assert await garbage.ended()
            gone = await here.client()
            await gone.send(b"\x16\x03")
            gone.close()
            silent = await here.client()
            half = await here.client()
            await half.send(b"\x16\x03\x01")
            assert await silent.ended()
            assert await half.ended()
            assert here.server.metrics.closed[CloseReason.TLS_TIMEOUT] == 2
            assert here.server.metrics.closed[CloseReason.TLS_FAILED] == 2
            client = await TlsClient.connect(here.port, authority)
            assert await client.ask(b"e") == b"e"
            await client.close()

    run(scenario)


def test_garbage_after_the_handshake(
    authority: Authority, config: TlsConfig, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with serving(tls=config) as here:
            client, good = [await TlsClient.connect(here.port, authority) for _ in range(2)]
            assert await client.ask(b"e") == b"e"
            os.write(client.writer.get_extra_info("socket").fileno(), b"\x17\x03\x03\x00\x20" + b"\xff" * 32)
            await until(lambda: here.handler.lost)
            bad = await TlsClient.connect(here.port, authority)
            await bad.send(struct.pack(">i", -7))
            await until(lambda: len(here.handler.lost) == 2)
            assert await good.ask(b"e") == b"e"
            for each in (client, good, bad):
                await each.close()

    run(scenario)
    assert "-7 bytes" in caplog.text


def test_handshakes_end_with_the_server(config: TlsConfig) -> None:
    async def scenario() -> None:
        async with serving(tls=config) as here:
            client = await here.client()
            await until(lambda: here.server.metrics.connections_open == 1)
            await here.server.close(grace_ms=100)
            assert await client.ended()

    run(scenario)


def test_the_client_side_of_a_tls_stream(authority: Authority, config: TlsConfig) -> None:
    async def scenario() -> None:
        async with serving(tls=config) as here:
            loop = asyncio.get_running_loop()
            context = ssl.create_default_context(cafile=str(authority.ca_path))
            raw = await LocalNetwork().connect("127.0.0.1", here.port)
            stream = TlsStream(raw, context, TlsScratch(), loop, server_hostname="localhost")
            ready: asyncio.Future[OSError | None] = loop.create_future()
            stream.handshake(ready.set_result)
            assert await ready is None
            assert stream.peer_certificate is not None
            body = b"e" + os.urandom(1_000_000)
            data = memoryview(frame(body))
            received = bytearray()
            done = asyncio.Event()

            def read() -> None:
                buffer = memoryview(bytearray(100_000))
                try:
                    received.extend(buffer[: stream.recv_into(buffer)])
                except BlockingIOError:
                    return
                if len(received) == len(frame(body)):
                    done.set()

            def write() -> None:
                nonlocal data
                try:
                    data = data[stream.send((data,)) :]
                except BlockingIOError:
                    return
                if not len(data) and not stream.unsent:
                    stream.set_writer(None)

            stream.set_reader(read)
            stream.set_writer(write)
            await done.wait()
            assert received == frame(body)
            stream.close()
            stream.close()

    run(scenario)


def test_log_lines_of_tls_clients_on_plain_listeners(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with serving() as here:
            with pytest.raises(OSError, match=r".*"):
                await TlsClient.connect(here.port, authority)
            assert here.server.metrics.closed[CloseReason.TLS_ON_PLAIN] == 1

    with caplog.at_level(logging.WARNING):
        run(scenario)
    assert "check security.protocol" in caplog.text


def test_principals() -> None:
    assert principal_of(None) == "User:ANONYMOUS"
    subject = (
        (("countryName", "DE"),),
        (("organizationName", " a+b "),),
        (("commonName", "#x"), ("userId", "7")),
    )
    assert principal_of({"subject": subject}) == "User:CN=\\#x+UID=7,O=\\ a\\+b\\ ,C=DE"
