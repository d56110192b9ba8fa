"""KubernetesStore keeps the contract over HTTP, and gives every fault of a server its name."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from tests.unit.cluster.fake_api_server import NAMESPACE, FakeApiServer, Handler, send, status
from tests.unit.cluster.store_contract import StoreContract, collect, names
from tests.unit.cluster.support import replace, run, topic_object

from strandline_broker.cluster.kubernetes_access import Access, BearerToken
from strandline_broker.cluster.kubernetes_api import ApiLimits, KubernetesApi
from strandline_broker.cluster.kubernetes_store import KubernetesStore
from strandline_broker.cluster.model import LEASE, TOPIC, BrokerLease, Object, new_object
from strandline_broker.cluster.store import (
    ClusterStore,
    Conflict,
    Gone,
    Invalid,
    NotFound,
    StoreError,
    Unavailable,
)

# Short where a test waits for it, long enough for a busy machine.
LIMITS = ApiLimits(connect_s=2.0, request_s=2.0, watch_silence_s=5.0)


class OwningStore(KubernetesStore):
    """A store that stops what belongs to it when it is closed."""

    def __init__(self, api: KubernetesApi, stack: contextlib.AsyncExitStack) -> None:
        super().__init__(api, NAMESPACE, rng=random.Random(7))
        self._stack = stack

    async def close(self) -> None:
        await super().close()
        await self._stack.aclose()


class TestKubernetesStore(StoreContract):
    history = 8

    async def open_store(self, place: Path, *, small_history: bool = False) -> ClusterStore:
        # The first client of a place brings the server, and takes it along.
        stack = contextlib.AsyncExitStack()
        address = place / "url"
        if not address.exists():
            server = FakeApiServer(history=self.history if small_history else 1_000)
            await stack.enter_async_context(server)
            address.write_text(server.url)
        return OwningStore(KubernetesApi(Access(address.read_text(), NAMESPACE), LIMITS), stack)


@contextlib.asynccontextmanager
async def fake(
    *interceptors: Handler, limits: ApiLimits = LIMITS, token: BearerToken | None = None
) -> AsyncIterator[tuple[FakeApiServer, KubernetesStore]]:
    async with FakeApiServer() as server:
        store = client(server.url, limits=limits, token=token)
        try:
            server.interceptors += interceptors
            yield server, store
        finally:
            await store.close()


def client(url: str, *, limits: ApiLimits = LIMITS, token: BearerToken | None = None) -> KubernetesStore:
    return KubernetesStore(KubernetesApi(Access(url, NAMESPACE, token=token), limits), NAMESPACE)


def answer(code: int, body: str, **headers: str) -> Handler:
    async def handler(_: web.Request) -> web.StreamResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(status=code, text=body, headers=named)

    return handler


def patch(store: ClusterStore, obj: Object, **more: Any) -> Any:
    arguments: dict[str, Any] = {"tests": [], "operations": [replace("/spec/partitions", 2)], **more}
    return store.patch_if(TOPIC, obj["metadata"]["name"], uid=obj["metadata"]["uid"], **arguments)


# -- what a server says --


@pytest.mark.parametrize(
    ("code", "body", "headers", "retry_after_s"),
    [
        (429, "Too many requests, please try again later.\n", {"Retry_After": "1"}, 1.0),
        (429, "storage is (re)initializing", {"Retry_After": "86400"}, 30.0),
        (503, "<html>no backend</html>", {"Retry_After": "tomorrow"}, None),
        (500, '{"kind": "Status", "message": "etcdserver: request timed out", "code": 500}', {}, None),
        (403, '{"kind": "Status", "reason": "Forbidden", "message": "topics is forbidden", "code": 403}', {}, None),
        (401, '{"kind": "Status", "reason": "Unauthorized", "message": "Unauthorized", "code": 401}', {}, None),
        (302, "", {"Location": "http://127.0.0.1:1/"}, None),
        (404, "404 page not found\n", {}, None),
        (404, '{"kind": "Status", "message": "not found", "details": {"kind": "namespaces", "name": "x"}}', {}, None),
    ],
)  # fmt: skip
def test_what_says_nothing_of_the_object_is_unavailable(
    code: int, body: str, headers: dict[str, str], retry_after_s: float | None
) -> None:
    async def body_() -> None:
        async with fake() as (server, store):
            created = await store.create(TOPIC, topic_object("a"))
            for call in (
                lambda: store.get(TOPIC, "a"),
                lambda: store.list(TOPIC),
                lambda: store.create(TOPIC, topic_object("b")),
                lambda: patch(store, created),
                lambda: store.delete_if(TOPIC, "a", uid=created["metadata"]["uid"]),
                lambda: anext(store.watch(TOPIC, "0")),
            ):
                server.interceptors.append(answer(code, body, **headers))
                with pytest.raises(Unavailable) as caught:
                    await call()
                assert caught.value.retry_after_s == retry_after_s
            assert await store.get(TOPIC, "a") == created, "nothing of it was carried out"

    run(body_())


def test_a_failed_test_and_a_refused_schema_are_told_apart() -> None:
    refused = status(
        422, "Invalid", 'Topic "a" is invalid: spec.partitions: Invalid value: partitions cannot be decreased',
        causes=[{"reason": "FieldValueInvalid", "message": "partitions cannot be decreased", "field": "spec.partitions"}],
    )  # fmt: skip

    async def body() -> None:
        async with fake() as (server, store):
            created = await store.create(TOPIC, topic_object("a"))
            server.interceptors.append(answer(422, refused.text or ""))
            with pytest.raises(Invalid, match="cannot be decreased"):
                await patch(store, created)
            # Refused, while somebody else changed what the decision had read: the decision is old.
            server.interceptors.append(answer(422, refused.text or ""))
            with pytest.raises(Conflict) as caught:
                await patch(store, created, tests=[("/spec/partitions", 7)])
            assert caught.value.differences == (("/spec/partitions", 7, 1),)

    run(body())


@pytest.mark.parametrize("code", [409, 422])
def test_a_conflict_that_is_over_when_the_object_is_read_again_is_a_conflict(code: int) -> None:
    async def body() -> None:
        async with fake() as (server, store):
            created = await store.create(TOPIC, topic_object("a"))
            refused = status(code, "Conflict", "the object has been modified")
            server.interceptors.append(answer(code, refused.text or ""))
            with pytest.raises(Conflict) as caught:
                await patch(store, created, tests=[("/spec/partitions", 1)])
            assert caught.value.differences == ()

    run(body())


def test_a_delete_whose_object_changed_elsewhere_is_tried_again() -> None:
    async def body() -> None:
        async with fake() as (server, store):
            created = await store.create(TOPIC, topic_object("a"))

            async def change_first(_: web.Request) -> None:
                await patch(store, created)

            async def let_through(_: web.Request) -> None:
                return None

            server.interceptors += [let_through, change_first]
            uid = created["metadata"]["uid"]
            await store.delete_if(TOPIC, "a", uid=uid, tests=[("/spec/clusterRef", {"name": "dev"})])
            with pytest.raises(NotFound):
                await store.get(TOPIC, "a")
            assert [method for method, _ in server.requests].count("DELETE") == 2

    run(body())


def test_a_name_that_no_object_can_have_is_never_sent() -> None:
    async def body() -> None:
        async with fake() as (server, store):
            for name in ("", "a/status", "../topics", "A"):
                with pytest.raises(NotFound):
                    await store.get(TOPIC, name)
                with pytest.raises(NotFound):
                    await store.delete_if(TOPIC, name, uid="u")
            assert server.requests == []

    run(body())


# -- lists --


def test_a_list_of_many_pages_is_one_state() -> None:
    async def body() -> None:
        async with fake() as (server, store):
            expected = sorted(f"t{index}" for index in range(250))
            for name in expected:
                await store.create(TOPIC, topic_object(name))

            async def write_between(_: web.Request) -> None:
                await store.create(TOPIC, topic_object("later"))

            async def let_through(_: web.Request) -> None:
                return None

            server.interceptors += [let_through, write_between]
            objects, version = await store.list(TOPIC)
            assert [obj["metadata"]["name"] for obj in objects] == expected
            assert {obj["kind"] for obj in objects} == {TOPIC}
            assert names(await collect(store.watch(TOPIC, version), 1)) == [("ADDED", "later")]

    run(body())


def test_a_list_whose_continuation_expired_begins_again_but_not_for_ever() -> None:
    async def body() -> None:
        async with fake() as (server, store):
            for index in range(101):
                await store.create(TOPIC, topic_object(f"t{index}"))

            async def expire(_: web.Request) -> None:
                server.forget_continuations()

            async def let_through(_: web.Request) -> None:
                return None

            server.interceptors += [let_through, expire]
            assert len((await store.list(TOPIC))[0]) == 101
            server.interceptors += [let_through, expire] * 100
            with pytest.raises(Unavailable, match="expired"):
                await store.list(TOPIC)

    run(body())


def test_leases_of_others_are_neither_listed_nor_watched() -> None:
    async def body() -> None:
        async with fake() as (_, store):
            foreign = new_object(LEASE, "leader-of-something", {"holderIdentity": "x"})
            ours = BrokerLease(1, "start", 1, {}, cluster="dev").to_object()
            await store.create(LEASE, foreign)
            _, version = await store.list(LEASE)
            await store.create(LEASE, ours)
            objects, _ = await store.list(LEASE)
            assert [obj["metadata"]["name"] for obj in objects] == ["dev-broker-1"]
            uid = (await store.get(LEASE, "leader-of-something"))["metadata"]["uid"]
            await store.delete_if(LEASE, "leader-of-something", uid=uid)
            second = BrokerLease(2, "start", 1, {}, cluster="dev").to_object()
            await store.create(LEASE, second)
            events = await collect(store.watch(LEASE, version), 2)
            assert names(events) == [("ADDED", "dev-broker-1"), ("ADDED", "dev-broker-2")]

    run(body())


# -- watches --


def stream_of(*frames: bytes, then: str = "end") -> Handler:
    """Answer a watch with these bytes, and end: cleanly, by breaking the connection, or never."""

    async def handler(request: web.Request) -> web.StreamResponse:
        stream = web.StreamResponse()
        await stream.prepare(request)
        for frame in frames:
            await stream.write(frame)
        if then == "break":
            assert request.transport is not None
            request.transport.abort()
        elif then == "hang":
            await asyncio.Event().wait()
        return stream

    return handler


EVENT = b'{"type": "ADDED", "object": {"kind": "Topic", "metadata": {"name": "a", "resourceVersion": "7"}}}\n'


@pytest.mark.parametrize("then", ["end", "break"])
def test_the_end_of_a_stream_is_the_end_of_the_watch(then: str) -> None:
    async def body() -> None:
        # The last line is cut off: it never happened, and comes again after the resume.
        async with fake(stream_of(EVENT[:20], EVENT[20:] + EVENT[:30], then=then)) as (_, store):
            events = [event async for event in store.watch(TOPIC, "3")]
            assert [event.version for event in events] == ["7"]

    run(body())


@pytest.mark.parametrize("kind", [TOPIC, LEASE])
def test_a_watch_on_a_silent_connection_ends(kind: str) -> None:
    async def body() -> None:
        limits = ApiLimits(watch_silence_s=0.2 if kind == TOPIC else 60.0, lease_silence_s=0.2)
        async with fake(stream_of(EVENT, then="hang"), limits=limits) as (_, store):
            events = [event async for event in store.watch(kind, "3")]
            assert [event.version for event in events] == ["7"]

    run(body())


@pytest.mark.parametrize(
    "status_object",
    [
        {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version: 3 (9)"},
        {"kind": "Status", "code": 410, "reason": "Gone", "message": "too old resource version"},
        {
            "kind": "Status", "code": 504, "reason": "Timeout", "message": "Too large resource version",
            "details": {"causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}]},
        },
    ],
)  # fmt: skip
def test_history_that_is_not_kept_is_gone_wherever_it_is_said(status_object: dict[str, Any]) -> None:
    async def in_stream(request: web.Request) -> web.StreamResponse:
        stream = web.StreamResponse()
        await stream.prepare(request)
        await stream.write(EVENT)
        await send(stream, {"type": "ERROR", "object": status_object})
        return stream

    async def at_once(_: web.Request) -> web.StreamResponse:
        return web.json_response(status_object, status=status_object["code"])

    async def body() -> None:
        async with fake(in_stream, at_once) as (_, store):
            watch = store.watch(TOPIC, "3")
            assert (await anext(watch)).version == "7"
            with pytest.raises(Gone):
                await anext(watch)
            with pytest.raises(Gone):
                await anext(store.watch(TOPIC, "3"))

    run(body())


@pytest.mark.parametrize(
    "line",
    [
        b"this is no JSON\n",
        b"[]\n",
        b'{"type": "ADDED"}\n',
        b'{"type": "ADDED", "object": {"metadata": {}}}\n',
        b'{"type": "RENAMED", "object": {"metadata": {"name": "a", "resourceVersion": "8"}}}\n',
        b'{"type": "ERROR", "object": {"kind": "Status", "code": 500, "message": "etcd lost its leader"}}\n',
        b'{"type": "ERROR", "object": null}\n',
        b"x" * (17 << 20),
    ],
)
def test_nonsense_in_a_stream_is_unavailable(line: bytes) -> None:
    async def body() -> None:
        async with fake(stream_of(EVENT, line, then="hang")) as (_, store):
            watch = store.watch(TOPIC, "3")
            assert (await anext(watch)).version == "7"
            with pytest.raises(Unavailable):
                await anext(watch)

    run(body())


def test_closing_the_store_ends_watches_and_refuses_further_calls() -> None:
    async def body() -> None:
        async with fake() as (server, store):
            watching = asyncio.create_task(collect(store.watch(TOPIC, "0"), 1))
            while not server.watches:
                await asyncio.sleep(0.01)
            await store.close()
            with pytest.raises(StopAsyncIteration):
                await watching
            for call in (store.list(TOPIC), store.get(TOPIC, "a"), store.create(TOPIC, topic_object("a"))):
                with pytest.raises(Unavailable):
                    await call
            with pytest.raises(Unavailable):
                await anext(store.watch(TOPIC, "0"))
            await store.close()

    run(body())


# -- connections --


def test_broken_answers_and_connections_are_unavailable() -> None:
    async def reset(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async def hang(_: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    async def cut(request: web.Request) -> web.StreamResponse:
        stream = web.StreamResponse(headers={"Content-Length": "1000"})
        await stream.prepare(request)
        await stream.write(b'{"kind": "Topic", ')
        assert request.transport is not None
        request.transport.abort()
        return stream

    async def body() -> None:
        limits = ApiLimits(request_s=0.3)
        for fault in (reset, hang, cut, answer(200, '{"kind": "Topic", ')):
            async with fake(fault, limits=limits) as (_, store):
                # A write: a read is repeated by the HTTP library where a connection breaks.
                with pytest.raises(Unavailable):
                    await store.create(TOPIC, topic_object("a"))
                with pytest.raises(NotFound):
                    await store.get(TOPIC, "a")

    run(body())


def test_a_server_that_does_not_listen_is_unavailable() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

        async def body() -> None:
            store = client(f"http://127.0.0.1:{port}")
            with pytest.raises(Unavailable, match="Connect call failed"):
                await store.get(TOPIC, "a")
            with pytest.raises(Unavailable, match="Connect call failed"):
                await anext(store.watch(TOPIC, "0"))
            await store.close()

        run(body())


def test_an_answer_without_end_is_not_kept() -> None:
    async def body() -> None:
        async with fake(answer(200, "x" * 2000), limits=ApiLimits(answer_bytes=1000)) as (_, store):
            with pytest.raises(Unavailable, match="1000 bytes"):
                await store.get(TOPIC, "a")

    run(body())


def test_requests_at_once_are_bounded_and_who_waits_too_long_is_told() -> None:
    async def body() -> None:
        at_once, most = 0, 0
        release = asyncio.Event()

        async def slow(_: web.Request) -> None:
            nonlocal at_once, most
            at_once += 1
            most = max(most, at_once)
            await release.wait()
            at_once -= 1

        limits = ApiLimits(requests=3, queue_s=0.2, request_s=10.0)
        async with fake(*[slow] * 8, limits=limits) as (_, store):
            calls = [asyncio.ensure_future(store.get(TOPIC, "a")) for _ in range(5)]
            done, _ = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
            assert all(isinstance(call.exception(), Unavailable) for call in done)
            release.set()
            errors = await asyncio.gather(*calls, return_exceptions=True)
            assert sorted(type(error).__name__ for error in errors) == ["NotFound"] * 3 + ["Unavailable"] * 2
            assert most == 3

    run(body())


# -- who we are --


def test_a_token_that_was_replaced_is_read_again_once(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("first\n")

    async def body() -> None:
        async with fake(token=BearerToken(path=path)) as (server, store):
            server.tokens = {"first"}
            await store.create(TOPIC, topic_object("a"))
            path.write_text("second\n")
            server.tokens = {"second"}
            await store.create(TOPIC, topic_object("b"))
            # No other token than before: the server's word stands.
            server.tokens = {"third"}
            before = len(server.requests)
            with pytest.raises(Unavailable, match="401"):
                await store.get(TOPIC, "a")
            assert len(server.requests) == before + 1

    run(body())


def test_no_error_says_the_token() -> None:
    secret = "not-for-logs-0123456789"

    async def reset(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async def body() -> None:
        faults = [answer(401, "who?"), answer(500, "x"), answer(422, "{"), reset, answer(200, "{")]
        async with fake(*faults, token=BearerToken(text=secret)) as (_, store):
            for _ in faults:
                with pytest.raises(StoreError) as caught:
                    await store.get(TOPIC, "a")
                error: BaseException | None = caught.value
                while error is not None:
                    assert secret not in repr(error) + str(error)
                    error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)

    run(body())
