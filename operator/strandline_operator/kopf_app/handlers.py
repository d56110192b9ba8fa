"""Everything that Kopf calls: the operator's life, one daemon per Cluster, and what it hears of Topics.

Importing this registers the handlers; only Kopf's process does it. Measured, and why it is as it is (design section 4):

- `on.event` for Topics writes nothing to them; update handlers would put annotations on every one.
- No `worker_limit`: with it a thousand Topics come in at a crawl.
- The handler of deletions applies only to what is being deleted, so that Kopf stores nothing in Clusters either.
- The daemon neither raises nor returns by itself (`operation`); `cancellation_backoff` gives it time to end in order.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections.abc import Iterator
from typing import Any, cast

import kopf

from strandline_broker.cluster.kubernetes_access import find_access
from strandline_broker.cluster.model import GROUP
from strandline_operator.kopf_app.application import Application
from strandline_operator.kopf_app.deletion import DEADLINE_S
from strandline_operator.kubernetes.settings import OperatorSettings

VERSION = "v1alpha1"
FINALIZER = "strandline.io/cluster"
_GRACEFUL_S = 10.0
_FORCED_S = 5.0
# After an error: a second, not Kopf's minute.
_RETRY_S = 1.0


class Backoffs:
    """Pauses in seconds between attempts at a request, without an end.

    After the last of its own, Kopf gives up, and the whole operator with it: an API server that is away for minutes would
    end it again and again. Just after the CRDs were made it answers 429, too.
    """

    def __iter__(self) -> Iterator[float]:
        yield from (0.2, 0.5, 1.0, 1.0, 2.0)
        while True:
            yield random.uniform(2.0, 4.0)  # noqa: S311 - no secret


def configure(settings: kopf.OperatorSettings, namespace: str) -> None:
    """Set what differs from Kopf's defaults. `namespace` is the only one that is served, empty for all."""
    settings.peering.standalone = True  # the lock is ours: Kopf's peering pauses, it elects nobody
    settings.persistence.finalizer = FINALIZER
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=GROUP)
    settings.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix=GROUP, key="last-handled")
    settings.background.cancellation_polling = 1.0
    settings.scanning.disabled = bool(namespace)  # needs rights beyond the namespace
    settings.posting.enabled = (
        False  # what people should learn is posted by `events`; Kopf's own is for the log
    )
    # Streams that end while the API server restarts are opened again at once.
    settings.watching.reconnect_backoff = 0.5
    settings.watching.connect_timeout = 5.0
    settings.watching.server_timeout = 300
    settings.networking.connect_timeout = 5.0
    settings.networking.request_timeout = 30.0
    settings.networking.error_backoffs = Backoffs()
    settings.queueing.error_delays = [0.5, 1, 1, 2, 2, 5]


@kopf.on.login()
def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
    """Log in as the pod's ServiceAccount, or by a kubeconfig; without the libraries that Kopf would look for first."""
    return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)


@kopf.on.startup()
async def start(settings: kopf.OperatorSettings, memo: kopf.Memo, **_: Any) -> None:
    """Become the active operator before anything is watched."""
    own = OperatorSettings.from_environment(os.environ)
    configure(settings, own.namespace)
    application = Application(find_access(), own)
    memo.application = application
    await application.start()


@kopf.on.cleanup()
async def stop(memo: kopf.Memo, **_: Any) -> None:
    """Let the lock go."""
    application: Application | None = memo.get("application")
    if application is not None:
        await application.stop()


@kopf.daemon(
    GROUP,
    VERSION,
    "clusters",
    cancellation_backoff=_GRACEFUL_S,
    cancellation_timeout=_FORCED_S,
    backoff=_RETRY_S,
)
async def operate(
    namespace: str | None, name: str, memo: kopf.Memo, stopped: kopf.DaemonStopped, **_: Any
) -> None:
    """Run one Cluster as long as it is there."""
    assert namespace is not None, "Clusters are namespaced"
    application: Application = memo.application
    await application.operate(namespace, name, stopped.wait)


def _is_deleted(meta: kopf.Meta, **_: Any) -> bool:
    return bool(meta.get("deletionTimestamp"))


@kopf.on.delete(
    GROUP, VERSION, "clusters", when=_is_deleted, timeout=DEADLINE_S + _GRACEFUL_S, backoff=_RETRY_S
)
async def delete(body: kopf.Body, memo: kopf.Memo, **_: Any) -> None:
    """Do what the deletionPolicy says; the finalizer is released afterwards, whatever came of it."""
    application: Application = memo.application
    await application.delete({"metadata": dict(body.metadata), "spec": dict(body.spec)})


@kopf.on.event(GROUP, VERSION, "clusters")
def cluster_event(
    event: kopf.RawEvent, namespace: str | None, name: str, uid: str | None, memo: kopf.Memo, **_: Any
) -> None:
    """Notice the end of Clusters."""
    if event["type"] == "DELETED":
        application: Application = memo.application
        application.gone(str(namespace), name, str(uid))


@kopf.on.event(GROUP, VERSION, "topics")
def topic_event(
    event: kopf.RawEvent, namespace: str | None, body: kopf.Body, memo: kopf.Memo, **_: Any
) -> None:
    """Notice Topics whose Cluster may be missing."""
    cluster_name = (body.spec.get("clusterRef") or {}).get("name")
    if event["type"] != "DELETED" and cluster_name:
        application: Application = memo.application
        application.topic_seen(str(namespace), str(cluster_name))


def run_operator(settings: OperatorSettings, liveness_endpoint: str | None) -> None:
    """Run until SIGTERM. Called by `strandline operator`."""
    # A line for every event of every Topic is too much.
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)
    # Nor one for every probe.
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
    asyncio.run(
        kopf.operator(
            standalone=True,
            clusterwide=not settings.namespace,
            namespaces=[settings.namespace] if settings.namespace else [],
            liveness_endpoint=liveness_endpoint,
            # Kopf would ask for the name of this process's user, and pods may run as one that has none.
            identity=cast(Any, settings.identity),
        )
    )
