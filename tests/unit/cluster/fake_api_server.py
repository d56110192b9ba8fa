"""A small API server over HTTP: the semantics of `SqliteStore`, the protocol of Kubernetes.

It shows that the Kubernetes client maps the one to the other, and lets tests break the protocol where a real server
cannot be made to. That the protocol is this one is shown by the same contract on a real server (`tests/kubernetes`).
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from strandline_broker.cluster import sqlite_engine
from strandline_broker.cluster.model import KINDS, Object
from strandline_broker.cluster.object_rules import apply_operations
from strandline_broker.cluster.store import AlreadyExists, Conflict, Gone, Invalid, NotFound

NAMESPACE = "test"
PLURALS = {info.plural: kind for kind, info in KINDS.items()}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse | None]]


def status(code: int, reason: str, message: str, **details: Any) -> web.Response:
    """Return an error as an API server words it."""
    body = {
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": message,
        "details": details,
    }  # fmt: skip
    return web.json_response(body, status=code)


class FakeApiServer:
    """`async with FakeApiServer() as server:` and clients of `server.url`.

    `interceptors`: each takes one request and answers it, or returns None to let it through. `tokens`: if any, what
    requests must bring one of.
    """

    def __init__(self, *, history: int = 1_000) -> None:
        connection = sqlite_engine.connect(":memory:")
        sqlite_engine.prepare(connection)
        self._engine = sqlite_engine.Engine(
            connection,
            history=history,
            validator=None,
            new_uid=lambda: str(uuid.uuid4()),
            now_ms=lambda: time.time_ns() // 1_000_000,
        )
        self._written = asyncio.Event()
        self._snapshots: dict[str, tuple[list[Object], str]] = {}
        self.interceptors: deque[Handler] = deque()
        self.tokens: set[str] = set()
        self.requests: list[tuple[str, str]] = []
        self.watches = 0
        app = web.Application(middlewares=[self._before])
        base = "/apis/{group}/{version}/namespaces/{namespace}/{plural}"
        app.router.add_get(base, self._list_or_watch)
        app.router.add_post(base, self._create)
        for path, subresource in ((base + "/{name}", None), (base + "/{name}/status", "status")):
            app.router.add_get(path, self._get)
            app.router.add_delete(path, self._delete)
            app.router.add_patch(path, self._patch_of(subresource))
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        self.url = ""

    async def __aenter__(self) -> FakeApiServer:
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = "http://{}:{}".format(*self._runner.addresses[0][:2])
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()
        self._engine.close()

    @web.middleware
    async def _before(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        self.requests.append((request.method, request.path_qs))
        if (
            self.tokens
            and request.headers.get("Authorization", "").removeprefix("Bearer ") not in self.tokens
        ):
            return status(401, "Unauthorized", "Unauthorized")
        if self.interceptors:
            answer = await self.interceptors.popleft()(request)
            if answer is not None:
                return answer
        if request.match_info.get("plural") not in PLURALS:
            return web.Response(status=404, text="404 page not found\n")
        if request.match_info["namespace"] != NAMESPACE and request.method == "POST":
            return status(404, "NotFound", "there is no namespace", name=NAMESPACE, kind="namespaces")
        try:
            return await handler(request)
        except NotFound as error:
            return status(404, "NotFound", str(error), name=request.match_info.get("name"))
        except AlreadyExists as error:
            return status(409, "AlreadyExists", str(error))
        except Invalid as error:
            return status(
                422, "Invalid", str(error), causes=[{"reason": "FieldValueInvalid", "message": str(error)}]
            )

    def _kind(self, request: web.Request) -> str:
        return PLURALS[request.match_info["plural"]]

    def _sent(self, obj: Object) -> web.Response:
        obj["metadata"]["managedFields"] = [{"manager": "strandline", "fieldsV1": {"f:spec": {}}}]
        return web.json_response(obj)

    def _wake(self) -> None:
        written, self._written = self._written, asyncio.Event()
        written.set()

    async def _get(self, request: web.Request) -> web.StreamResponse:
        return self._sent(self._engine.get(self._kind(request), request.match_info["name"]))

    async def _create(self, request: web.Request) -> web.StreamResponse:
        created = self._engine.create(self._kind(request), await request.json())
        self._wake()
        return self._sent(created)

    def _patch_of(self, subresource: Any) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def patch(request: web.Request) -> web.StreamResponse:
            kind, name = self._kind(request), request.match_info["name"]
            assert request.content_type == "application/json-patch+json"
            operations = await request.json()
            current = self._engine.get(kind, name)
            try:
                apply_operations(kind, current, operations)
            except (Conflict, Invalid):
                # Without a cause, whether a test did not hold or a path is not there.
                return status(
                    422, "Invalid", "the server rejected our request due to an error in our request"
                )
            uid = current["metadata"]["uid"]
            patched = self._engine.patch_if(kind, name, uid, (), operations, subresource)
            self._wake()
            return self._sent(patched)

        return patch

    async def _delete(self, request: web.Request) -> web.StreamResponse:
        kind, name = self._kind(request), request.match_info["name"]
        preconditions = (await request.json())["preconditions"]
        version = preconditions.get("resourceVersion")
        tests = [("/metadata/resourceVersion", version)] if version else []
        try:
            self._engine.delete_if(kind, name, preconditions["uid"], tests)
        except Conflict as error:
            return status(409, "Conflict", f"Precondition failed: {error}", name=name)
        self._wake()
        return web.json_response({"kind": "Status", "apiVersion": "v1", "status": "Success"})

    async def _list_or_watch(self, request: web.Request) -> web.StreamResponse:
        if request.query.get("watch"):
            return await self._watch(request)
        assert "resourceVersion" not in request.query, "a list must be a consistent read"
        kind = self._kind(request)
        token, _, offset = request.query.get("continue", "").partition(":")
        if not token:
            token = str(uuid.uuid4())
            self._snapshots[token] = self._engine.list_objects(kind)
        elif token not in self._snapshots:
            return status(410, "Expired", "The provided continue parameter is too old")
        found, version = self._snapshots[token]
        found = [obj for obj in found if self._selected(request, obj)]
        start, limit = int(offset or 0), int(request.query["limit"])
        items = json.loads(json.dumps(found[start : start + limit]))
        for obj in items:
            # Typed lists name the kind once, for the list.
            del obj["kind"], obj["apiVersion"]
        more = f"{token}:{start + limit}" if start + limit < len(found) else ""
        metadata = {"resourceVersion": version, "continue": more}
        return web.json_response({"kind": f"{kind}List", "metadata": metadata, "items": items})

    def _selected(self, request: web.Request, obj: Object) -> bool:
        label = request.query.get("labelSelector")
        return label is None or label in (obj["metadata"].get("labels") or {})

    def forget_continuations(self) -> None:
        """Let every list that has begun expire."""
        self._snapshots.clear()

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        kind, version = self._kind(request), request.query["resourceVersion"]
        if not version.isdigit():
            return status(400, "BadRequest", f"Invalid value: {version!r}: invalid resource version")
        stream = web.StreamResponse()
        await stream.prepare(request)
        self.watches += 1
        position = int(version)
        await send(stream, {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": version}}})
        while True:
            waiting = self._written
            try:
                events = self._engine.events_after(kind, position, 256)
            except Gone as error:
                gone = {"kind": "Status", "code": 410, "reason": "Expired", "message": str(error)}
                await send(stream, {"type": "ERROR", "object": gone})
                return stream
            for event in events:
                position = int(event.version)
                if self._selected(request, event.object):
                    await send(stream, {"type": event.type.value, "object": event.object})
            await waiting.wait()


async def send(stream: web.StreamResponse, frame: dict[str, Any]) -> None:
    await stream.write(json.dumps(frame).encode() + b"\n")
