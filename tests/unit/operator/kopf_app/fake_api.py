"""An API server in memory: as much of one as the operator's client asks for. It counts writes."""

from __future__ import annotations

import asyncio
import copy
import itertools
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import orjson

from strandline_broker.cluster.kubernetes_errors import ApiRefusal
from strandline_broker.cluster.model import Object
from strandline_broker.cluster.store import Unavailable

Body = dict[str, Any]


class FakeApi:
    """Stands in for `KubernetesApi`. `objects` are by path; `writes` are (method, path) of what changed something."""

    def __init__(self) -> None:
        self.objects: dict[str, Object] = {}
        self.writes: list[tuple[str, str]] = []
        self.away = False
        self._versions = itertools.count(1)
        self._changed = asyncio.Condition()
        self._events: list[tuple[int, str, str, Object]] = []

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
        content_type: str = "",
        timeout_s: float | None = None,
    ) -> Any:
        if self.away:
            raise Unavailable("away")
        content = orjson.loads(body) if body is not None else {}
        match method:
            case "GET" if _is_collection(path):
                return await self._list(path, query or {})
            case "GET":
                return copy.deepcopy(self._found(path))
            case "POST" if path.endswith("/eviction"):
                return await self.remove(path.removesuffix("/eviction"))
            case "POST":
                name = (
                    content["metadata"].get("name")
                    or f"{content['metadata']['generateName']}{len(self.objects)}"
                )
                if f"{path}/{name}" in self.objects:
                    raise ApiRefusal(409, "AlreadyExists", f"{path}/{name} exists")
                return await self.put(
                    f"{path}/{name}", {**content, "metadata": {**content["metadata"], "name": name}}
                )
            case "PATCH":
                return await self._patch(path, content, content_type)
            case "DELETE":
                if content["preconditions"]["uid"] != self._found(path)["metadata"]["uid"]:
                    raise ApiRefusal(409, "Conflict", "another object")
                return await self.remove(path)
        raise AssertionError((method, path))

    async def stream(
        self, path: str, query: Mapping[str, str], *, silence_s: float
    ) -> AsyncGenerator[bytes, None]:
        version = int(query["resourceVersion"])
        while True:
            async with self._changed:
                while not (news := [event for event in self._events if event[0] > version]):
                    await self._changed.wait()
            version = news[-1][0]
            for _, type_, where, obj in news:
                if where.startswith(f"{path}/") and _matches(obj, query):
                    yield orjson.dumps({"type": type_, "object": obj}) + b"\n"

    async def close(self) -> None:
        pass

    async def put(self, path: str, obj: Object) -> Object:
        """Store an object as the server would, and tell watchers."""
        old = self.objects.get(path)
        stored = copy.deepcopy(obj)
        version = next(self._versions)
        uid = old["metadata"]["uid"] if old else stored["metadata"].get("uid", f"uid-{version}")
        stored["metadata"] |= {"uid": uid, "resourceVersion": str(version)}
        self.objects[path] = stored
        self.writes.append(("MODIFIED" if old else "ADDED", path))
        await self._tell(version, "MODIFIED" if old else "ADDED", path, stored)
        return copy.deepcopy(stored)

    async def remove(self, path: str) -> Object:
        """Delete an object, and tell watchers."""
        gone = self._found(path)
        del self.objects[path]
        self.writes.append(("DELETED", path))
        version = next(self._versions)
        gone["metadata"]["resourceVersion"] = str(version)
        await self._tell(version, "DELETED", path, gone)
        return gone

    async def _tell(self, version: int, type_: str, path: str, obj: Object) -> None:
        async with self._changed:
            self._events.append((version, type_, path, copy.deepcopy(obj)))
            self._changed.notify_all()

    def _found(self, path: str) -> Object:
        if path not in self.objects:
            raise ApiRefusal(404, "NotFound", f"no {path}")
        return self.objects[path]

    async def _list(self, path: str, query: Mapping[str, str]) -> Body:
        items = [
            {key: value for key, value in copy.deepcopy(obj).items() if key not in ("kind", "apiVersion")}
            for where, obj in sorted(self.objects.items())
            if where.rpartition("/")[0] == path and _matches(obj, query)
        ]
        return {"items": items, "metadata": {"resourceVersion": str(next(self._versions))}}

    async def _patch(self, path: str, content: Any, content_type: str) -> Object:
        if content_type.startswith("application/apply-patch"):
            old = self.objects.get(path, {})
            return await self.put(path, _merged(old, content))
        old = self._found(path)
        if content_type.startswith("application/json-patch"):
            raise AssertionError("the cluster store has tests of its own")
        for field in ("uid", "resourceVersion"):
            expected = content.get("metadata", {}).get(field)
            if expected is not None and expected != old["metadata"][field]:
                raise ApiRefusal(409, "Conflict", f"{field} differs")
        return await self.put(path, _merged(old, content))


def _merged(old: Any, new: Any) -> Any:
    if isinstance(old, dict) and isinstance(new, dict):
        return {**old, **{key: _merged(old.get(key), value) for key, value in new.items()}}
    return new


def _is_collection(path: str) -> bool:
    parts = path.strip("/").split("/")
    rest = parts[2:] if parts[0] == "api" else parts[3:]
    return len(rest) == 1 or (rest[0] == "namespaces" and len(rest) == 3)


def _matches(obj: Object, query: Mapping[str, str]) -> bool:
    labels = obj["metadata"].get("labels") or {}
    wanted = query.get("labelSelector", "")
    return all(labels.get(k) == v for k, _, v in (part.partition("=") for part in wanted.split(",") if part))
