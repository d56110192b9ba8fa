"""The cluster that is restored into: is it empty, which id does it have, and how its objects come into the store.

Used by `strandline tier restore`, for the directory of `strandline dev` and for a namespace in Kubernetes alike. The
ClusterState comes first and says which cluster is being restored since when: by that an interrupted restore goes on where
it was, and a second one from elsewhere is refused. Topics come last.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import orjson

from strandline_broker.cluster.model import (
    CLUSTER,
    CLUSTER_STATE,
    MALFORMED,
    NO_LEADER,
    PARTITION_SET,
    TOPIC,
    Cluster,
    ClusterState,
    Object,
    PartitionSet,
    Topic,
    cluster_state_name,
)
from strandline_broker.cluster.sqlite_store import SqliteStore
from strandline_broker.cluster.store import AlreadyExists, ClusterStore, NotFound, StoreError
from strandline_operator.cli.layout import CLUSTER_NAME, DataDir, LayoutError
from strandline_operator.cli.restored_objects import ANNOTATION_RESTORED_FROM, RestoredObjects
from strandline_operator.controller.world import format_time, parse_time_ms

ANNOTATION_RESTORED_AT = "strandline.io/restored-at"
DEFAULT_BROKERS = 3
_NAMED = 5
"""Of what stands in the way so many are named."""


class TargetError(Exception):
    """The cluster cannot be restored into. The message says what to do."""


@dataclass(frozen=True, slots=True)
class Target:
    """An empty cluster. `store` is None where a `strandline dev` directory has none yet, in a dry run only."""

    store: ClusterStore | None
    cluster: str
    where: str
    """For people: how one gets to it."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Id of the cluster that is restored into, and when that began, ms since 1970."""

    cluster_id: UUID
    restored_at_ms: int


@contextlib.asynccontextmanager
async def dev_target(data_dir: Path, *, dry_run: bool) -> AsyncIterator[Target]:
    """Yield the cluster of a `strandline dev` directory, locked; it is made if it is not there. Raises TargetError."""
    layout = DataDir(data_dir)
    if dry_run and not layout.store_file.exists():
        _check_volumes(layout)
        yield Target(None, CLUSTER_NAME, f"the cluster in {layout.path}")
        return
    try:
        layout.acquire()
    except LayoutError as error:
        raise TargetError(str(error)) from error
    try:
        _check_volumes(layout)
        store = SqliteStore(layout.store_file)
        try:
            yield Target(store, CLUSTER_NAME, f"the cluster in {layout.path}")
        finally:
            await store.close()
    finally:
        layout.release()


def _check_volumes(layout: DataDir) -> None:
    """Refuse a directory in which brokers have records: those belong to another cluster, or make a restore needless."""
    for broker_id in layout.broker_ids():
        if (layout.broker_dir(broker_id) / "data" / "meta.json").exists():
            raise TargetError(
                f"{layout.broker_dir(broker_id)} has the volume of a broker: if it is whole, start the cluster instead "
                f"(strandline dev --data-dir {layout.path}); if everything is lost, move {layout.path}/broker-* away first"
            )


@contextlib.asynccontextmanager
async def kubernetes_target(namespace: str | None, cluster: str) -> AsyncIterator[Target]:
    """Yield a cluster in Kubernetes, whose Cluster object need not exist yet. Raises TargetError."""
    from strandline_broker.cluster.kubernetes_store import open_kubernetes_store

    try:
        store = await open_kubernetes_store(namespace)
    except StoreError as error:
        raise TargetError(str(error)) from error
    try:
        yield Target(store, cluster, f"the Cluster {cluster} in namespace {store.namespace}")
    finally:
        await store.close()


async def read_cluster_object(target: Target) -> Cluster | None:
    """Return the Cluster object, None where there is none. Raises StoreError."""
    if target.store is None:
        return None
    try:
        return Cluster.from_object(await target.store.get(CLUSTER, target.cluster))
    except NotFound:
        return None


# -- is it empty? ----------------------------------------------------------------------------------------------------


async def check_empty(target: Target, source: UUID) -> None:
    """Refuse a cluster that has anything but what an interrupted restore from `source` left. Raises TargetError."""
    store = target.store
    if store is None:
        return
    topics = [
        topic.topic_name
        for obj in (await store.list(TOPIC))[0]
        if (topic := Topic.from_object(obj)).cluster == target.cluster and not _is_restored(obj, source)
    ]
    if topics:
        raise TargetError(
            f"{target.where} is not empty: it has {_several('topic', topics)}. Restore into a new cluster, or delete them "
            "first (with their Topic objects, and deletionPolicy Delete)"
        )
    others: list[str] = []
    for obj in (await store.list(PARTITION_SET))[0]:
        try:
            found = PartitionSet.from_object(obj)
        except MALFORMED as error:
            raise TargetError(f"PartitionSet {obj['metadata']['name']} cannot be read: {error!r}") from error
        if found.cluster != target.cluster:
            continue
        if not _is_restored(obj, source):
            others.append(found.topic_name)
        elif any(state.leader != NO_LEADER for state in found.partitions):
            raise TargetError(
                f"{target.where} was restored from {source}, and has been started since: there is nothing more to restore"
            )
    if others:
        raise TargetError(
            f"{target.where} is not empty: it has partitions of {_several('topic', sorted(set(others)))}. A cluster that "
            "has run may have committed offsets of its own: restore before its first start (in Kubernetes before the "
            "Cluster is applied), or delete it with its partitions first"
        )


def _is_restored(obj: Object, source: UUID) -> bool:
    return _annotation(obj, ANNOTATION_RESTORED_FROM) == str(source)


def _annotation(obj: Object, name: str) -> str:
    text: str = (obj["metadata"].get("annotations") or {}).get(name, "")
    return text


def _several(what: str, names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"the {what}{'s' if len(names) > 1 else ''} {', '.join(names[:_NAMED])}{more}"


# -- its identity ----------------------------------------------------------------------------------------------------


async def identify(target: Target, source: UUID) -> Identity:
    """Return what the cluster's identity is, or will be once `settle` wrote it. Raises TargetError, StoreError."""
    proposed = Identity(uuid4(), time.time_ns() // 1_000_000_000 * 1000)
    obj = await _state(target)
    if obj is None:
        return proposed
    state = ClusterState.from_object(obj)
    if not state.cluster_id:
        raise TargetError(f"{target.where} has no id yet: wait until the operator has given it one")
    if state.cluster_id == str(source):
        raise TargetError(f"{target.where} is the cluster {source} itself: start it instead")
    before, since = _annotation(obj, ANNOTATION_RESTORED_FROM), _annotation(obj, ANNOTATION_RESTORED_AT)
    if before not in ("", str(source)):
        raise TargetError(
            f"{target.where} is being restored from {before}; finish that, or use another cluster"
        )
    restored_at_ms = parse_time_ms(since) if before and since else proposed.restored_at_ms
    return Identity(UUID(state.cluster_id), restored_at_ms)


async def settle(target: Target, source: UUID, identity: Identity) -> None:
    """Give the cluster its id if it has none, and note what is being restored since when. Raises StoreError.

    Producers of the lost cluster live on, and restored logs remember the sequences of their last batches: no id of theirs
    is given to another. How many were given is not in the bucket. So blocks go on from the number of the second in which
    the restore began, which no cluster has reached that gave less than a block in every second of its life.
    """
    assert target.store is not None, "a dry run writes nothing"
    note = {
        ANNOTATION_RESTORED_FROM: str(source),
        ANNOTATION_RESTORED_AT: format_time(identity.restored_at_ms),
    }
    block = identity.restored_at_ms // 1000
    obj = await _state(target)
    if obj is None:
        obj = ClusterState(
            cluster=target.cluster, cluster_id=str(identity.cluster_id), next_producer_id_block=block
        ).to_object()
        obj["metadata"]["annotations"] = note
        await target.store.create(CLUSTER_STATE, obj)
        return
    annotations = obj["metadata"].get("annotations") or {}
    given = obj["spec"]["nextProducerIdBlock"]
    if note.items() <= annotations.items() and given >= block:
        return
    await target.store.patch_if(
        CLUSTER_STATE,
        obj["metadata"]["name"],
        uid=obj["metadata"]["uid"],
        tests=[("/spec/clusterId", str(identity.cluster_id)), ("/spec/nextProducerIdBlock", given)],
        operations=[
            {"op": "add", "path": "/metadata/annotations", "value": annotations | note},
            {"op": "replace", "path": "/spec/nextProducerIdBlock", "value": max(given, block)},
        ],
    )


async def _state(target: Target) -> Object | None:
    if target.store is None:
        return None
    try:
        return await target.store.get(CLUSTER_STATE, cluster_state_name(target.cluster))
    except NotFound:
        return None


# -- its objects -----------------------------------------------------------------------------------------------------


async def create_objects(target: Target, objects: RestoredObjects) -> None:
    """Create what is not there yet: partitions, then Topics. Raises TargetError, StoreError."""
    assert target.store is not None, "a dry run creates nothing"
    await _create(target.store, PARTITION_SET, objects.partition_sets)
    await _create(target.store, TOPIC, objects.topics)


async def _create(store: ClusterStore, kind: str, objects: Iterable[Object]) -> None:
    for obj in objects:
        name = obj["metadata"]["name"]
        try:
            await store.create(kind, obj)
        except AlreadyExists:
            there = await store.get(kind, name)
            if _comparable(kind, there) != _comparable(kind, obj):
                raise TargetError(
                    f"{kind} {name} is there already, and is another one; delete it first"
                ) from None


def _comparable(kind: str, obj: Object) -> Any:
    """Return what must be the same in an object of a former run: placement may differ, what it is may not."""
    spec = obj["spec"]
    if kind == PARTITION_SET:
        return spec["topicId"], [state["leaderEpoch"] for state in spec["partitions"]]
    return orjson.dumps(spec, option=orjson.OPT_SORT_KEYS)
