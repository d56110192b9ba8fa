"""Notices for people as Kubernetes Events.

Kopf could post them, but keeps what waits in a queue without a bound; here a burst beyond the bound is logged and left out.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from strandline_broker.cluster.kubernetes_errors import ApiRefusal
from strandline_broker.cluster.model import API_VERSION, Object
from strandline_broker.cluster.store import Unavailable
from strandline_operator.controller.actions import Notice
from strandline_operator.kubernetes.client import KubernetesClient

logger = logging.getLogger(__name__)

MAX_WAITING: Final = 1_000
_COMPONENT: Final = "strandline-operator"
# Kubernetes' own limit.
_MAX_MESSAGE: Final = 1024


class _Waiting(NamedTuple):
    namespace: str
    notice: Notice
    uid: str


def event_object(namespace: str, notice: Notice, uid: str, now: datetime) -> Object:
    """Return the Event that tells of a notice about one of our own objects."""
    time = now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    involved: dict[str, Any] = {
        "apiVersion": API_VERSION,
        "kind": notice.kind,
        "namespace": namespace,
        "name": notice.name,
    }
    if uid:
        involved["uid"] = uid
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"namespace": namespace, "generateName": f"{notice.name[:200]}."},
        "involvedObject": involved,
        "reason": notice.reason,
        "message": notice.message[:_MAX_MESSAGE],
        "type": "Warning" if notice.warning else "Normal",
        "source": {"component": _COMPONENT},
        "reportingComponent": _COMPONENT,
        "reportingInstance": socket.gethostname(),
        "firstTimestamp": time,
        "lastTimestamp": time,
        "count": 1,
    }


class EventPoster:
    """Posts notices in their order. `post` never blocks; `run` belongs into a task."""

    def __init__(self, client: KubernetesClient, now: Callable[[], datetime]) -> None:
        self._client = client
        self._now = now
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue(MAX_WAITING)

    def post(self, namespace: str, notice: Notice, uid: str = "") -> None:
        """Have an Event made; what does not fit any more is only logged."""
        level = logging.WARNING if notice.warning else logging.INFO
        logger.log(
            level, "%s %s/%s: %s: %s", notice.kind, namespace, notice.name, notice.reason, notice.message
        )
        try:
            self._queue.put_nowait(_Waiting(namespace, notice, uid))
        except asyncio.QueueFull:
            logger.warning("too many Events wait already, this one is not posted")

    async def run(self) -> None:
        """Post until cancelled. An Event that cannot be posted is logged: nothing depends on it."""
        while True:
            waiting = await self._queue.get()
            event = event_object(waiting.namespace, waiting.notice, waiting.uid, self._now())
            try:
                await self._client.create(event)
            except (ApiRefusal, Unavailable) as error:
                logger.warning("an Event was not posted: %s", error)
