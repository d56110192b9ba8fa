"""Runs decision traces: text files of commands and the output they should give.

A trace is a sequence of blocks: commands, a line `----`, the expected output, an empty line. Commands change a real
store (in memory) as users and brokers would; `step` decides once and applies the result, `settle` until nothing is left.
Set REWRITE_TRACES=1 to write what came out into the files, and read the diff.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from typing import Any
from uuid import UUID

from strandline_broker.cluster import transitions
from strandline_broker.cluster.model import (
    CLUSTER,
    CLUSTER_STATE,
    LEASE,
    PARTITION_SET,
    TOPIC,
    BrokerIdentity,
    Cluster,
    ClusterState,
    PartitionSet,
    PartitionState,
    StorageReport,
    Topic,
    new_object,
)
from strandline_broker.cluster.patches import patch_partitions
from strandline_broker.cluster.sqlite_store import SqliteStore
from strandline_broker.cluster.store import StoreError
from strandline_operator.controller.actions import Action, Create, Delete, Patch
from strandline_operator.controller.bucket_status import POSITIVE
from strandline_operator.controller.decisions import decide
from strandline_operator.controller.tier_figures import TopicTiers
from strandline_operator.controller.world import FINALIZER, World, group_sets, read_grace_period_ms

MAX_STEPS = 12


class Trace:
    """A store, brokers that are what the trace says, and a clock that the trace moves."""

    def __init__(self) -> None:
        self.now_ms = 1_700_000_000_000
        uids = itertools.count(1)
        self.store = SqliteStore(":memory:", new_uid=lambda: f"uid-{next(uids)}", now_ms=lambda: self.now_ms)
        self.brokers: dict[int, BrokerIdentity] = {}
        self.last_seen: dict[int, BrokerIdentity] = {}
        self.storage: dict[int, StorageReport] = {}
        self.tiers: dict[UUID, TopicTiers | None] = {}
        self.awaited: set[int] = set()
        self.settled = True
        self.returning = 0
        self.output: list[str] = []

    async def run(self, command: str) -> None:
        word, *arguments = command.split()
        options = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
        names = [argument for argument in arguments if "=" not in argument]
        await getattr(self, f"do_{word.replace('-', '_')}")(names, options)

    # -- what users and brokers do -------------------------------------------------------------------------------------

    async def do_cluster(self, _: list[str], options: dict[str, str]) -> None:
        spec: dict[str, Any] = {"replicas": int(options.pop("replicas", "1"))}
        spec["flush"] = options.pop("flush", "Fsync")
        if options.pop("tiering", ""):
            spec["tiering"] = {"bucket": "b"}
        spec["config"] = options
        await self._put(CLUSTER, "demo", spec, {})

    async def do_broker(self, names: list[str], options: dict[str, str]) -> None:
        """Let a broker become running, draining, starting or stopped; what is not given is as it was."""
        broker_id, state = int(names[0]), names[1]
        last = self.last_seen.get(broker_id, BrokerIdentity(broker_id, 1, "a"))
        identity = BrokerIdentity(
            broker_id,
            int(options.get("generation", last.generation)),
            options.get("incarnation", last.incarnation),
            options.get("rack", last.rack),
            state == "draining",
        )
        self.last_seen[broker_id] = identity
        self.brokers.pop(broker_id, None)
        if state in ("running", "draining"):
            self.brokers[broker_id] = identity

    async def do_bucket(self, names: list[str], options: dict[str, str]) -> None:
        """Let brokers report something of their bucket and disk, e.g. `bucket 0 1 bucket=Ready producers=refused`."""
        report = StorageReport.parse(json.dumps(options))
        self.storage |= {int(name): report for name in names}

    async def do_tiers(self, names: list[str], _: dict[str, str]) -> None:
        """Let it be known what is in the bucket: `tiers orders 5000 200` (stored, unprotected), or that nothing is."""
        (part,) = {
            s.topic_id
            for s in map(PartitionSet.from_object, (await self.store.list(PARTITION_SET))[0])
            if s.topic_name == names[0]
        }
        self.tiers[part] = TopicTiers(int(names[1]), int(names[2])) if len(names) > 1 else None

    async def do_forget_tiers(self, _: list[str], __: dict[str, str]) -> None:
        """Let the controller be a new one, which has not asked yet."""
        self.tiers = {}

    async def do_topic(self, names: list[str], options: dict[str, str]) -> None:
        spec: dict[str, Any] = {"clusterRef": {"name": "demo"}}
        spec["partitions"] = int(options.pop("partitions", "1"))
        spec["replicas"] = int(options.pop("replicas", "1"))
        for option, key in (
            ("policy", "deletionPolicy"),
            ("grace", "deletionGracePeriod"),
            ("name", "topicName"),
        ):
            if option in options:
                spec[key] = options.pop(option)
        annotations = {"strandline.io/undelete": "yes"} if "undelete" in names else {}
        if "assignment" in options:
            annotations["strandline.io/replica-assignment"] = options.pop("assignment")
        spec["config"] = options
        await self._put(TOPIC, names[0], spec, annotations)

    async def do_raw_topic(self, names: list[str], options: dict[str, str]) -> None:
        spec = {key: json.loads(value) for key, value in options.items()}
        await self._put(TOPIC, names[0], {"clusterRef": {"name": "demo"}, **spec}, {})

    async def do_delete_topic(self, names: list[str], _: dict[str, str]) -> None:
        obj = await self.store.get(TOPIC, names[0])
        await self.store.delete_if(TOPIC, names[0], uid=obj["metadata"]["uid"])

    async def do_delete_cluster(self, _: list[str], __: dict[str, str]) -> None:
        obj = await self.store.get(CLUSTER, "demo")
        await self.store.delete_if(CLUSTER, "demo", uid=obj["metadata"]["uid"])

    async def do_broker_default(self, _: list[str], options: dict[str, str]) -> None:
        """Set dynamic configurations of all brokers, as a Kafka client does."""
        (obj,) = (await self.store.list(CLUSTER_STATE))[0]
        await self.store.patch_if(
            CLUSTER_STATE,
            obj["metadata"]["name"],
            uid=obj["metadata"]["uid"],
            tests=[],
            operations=[{"op": "replace", "path": "/spec/brokerConfigs", "value": {"default": options}}],
        )

    async def do_lose_slice(self, names: list[str], _: dict[str, str]) -> None:
        objects, _version = await self.store.list(PARTITION_SET)
        obj = objects[int(names[0])]
        await self.store.delete_if(PARTITION_SET, obj["metadata"]["name"], uid=obj["metadata"]["uid"])

    async def do_advance(self, names: list[str], _: dict[str, str]) -> None:
        self.now_ms += int(names[0].removesuffix("s")) * 1000

    async def do_unsettled(self, names: list[str], _: dict[str, str]) -> None:
        self.settled = False
        self.awaited = {int(name) for name in names}

    async def do_settled(self, _: list[str], __: dict[str, str]) -> None:
        self.settled = True
        self.awaited = set()

    async def do_returning(self, names: list[str], _: dict[str, str]) -> None:
        """Let so many leaderships return to their preferred replicas with each decision."""
        self.returning = int(names[0])

    async def do_isr(self, names: list[str], _: dict[str, str]) -> None:
        """Change the ISR as the leader does: `isr orders 0,1 0 2` makes it 0,1 for partitions 0 and 2."""
        wanted = [int(broker_id) for broker_id in names[1].split(",")]

        def decide(part: PartitionSet, state: PartitionState) -> PartitionState:
            minimum = part.min_insync_replicas
            out = set(state.isr_ids) - set(wanted)
            state = transitions.shrink_isr(state, out_of_sync=out, min_isr=minimum)
            for broker_id in wanted:
                follower = transitions.FollowerProgress(
                    broker_id, self.brokers[broker_id].generation, state.leader_epoch, 1
                )
                if broker_id not in state.isr_ids:
                    state = transitions.grow_isr(
                        state, follower, live=self.brokers, high_watermark=1, epoch_start=1, min_isr=minimum
                    )
            return state

        await self._change(names[0], names[2:], decide)

    async def do_reassign(self, names: list[str], _: dict[str, str]) -> None:
        """Set a target as a Kafka client does: `reassign orders 2,3 0 1`; `reassign orders cancel 0` takes it back."""

        def decide(_: PartitionSet, state: PartitionState) -> PartitionState:
            if names[1] == "cancel":
                return transitions.cancel_reassignment(state)
            return transitions.request_reassignment(state, [int(b) for b in names[1].split(",")])

        await self._change(names[0], names[2:], decide)

    async def _change(
        self,
        topic: str,
        numbers: list[str],
        decide: Callable[[PartitionSet, PartitionState], PartitionState],
    ) -> None:
        objects, _ = await self.store.list(PARTITION_SET)
        (part,) = (s for s in map(PartitionSet.from_object, objects) if s.topic_name == topic)
        chosen = [int(number) for number in numbers] or range(len(part.partitions))
        changed = {n: decide(part, part.partition(n)) for n in chosen}
        changed = {n: state for n, state in changed.items() if state != part.partition(n)}
        tests, operations = patch_partitions(part, changed)
        await self.store.patch_if(PARTITION_SET, part.name, uid=part.uid, tests=tests, operations=operations)

    async def _put(self, kind: str, name: str, spec: dict[str, Any], annotations: dict[str, str]) -> None:
        try:
            old = await self.store.get(kind, name)
        except StoreError:
            await self.store.create(kind, new_object(kind, name, spec, annotations=annotations))
            return
        await self.store.patch_if(
            kind,
            name,
            uid=old["metadata"]["uid"],
            tests=[],
            operations=[
                {"op": "add", "path": "/spec", "value": spec},
                *(
                    [{"op": "add", "path": "/metadata/annotations", "value": annotations}]
                    if annotations
                    else []
                ),
            ],
        )

    # -- decisions -----------------------------------------------------------------------------------------------------

    async def world(self) -> World:
        lists = {
            kind: (await self.store.list(kind))[0]
            for kind in (CLUSTER, TOPIC, PARTITION_SET, CLUSTER_STATE, LEASE)
        }
        sets = [PartitionSet.from_object(obj) for obj in lists[PARTITION_SET]]
        graces = {
            s.topic_id: read_grace_period_ms(o) for s, o in zip(sets, lists[PARTITION_SET], strict=True)
        }
        return World(
            cluster_name="demo",
            now_ms=self.now_ms,
            cluster=next((Cluster.from_object(obj) for obj in lists[CLUSTER]), None),
            topics=tuple(Topic.from_object(obj) for obj in lists[TOPIC]),
            sets=group_sets(sets, graces),
            state=next((ClusterState.from_object(obj) for obj in lists[CLUSTER_STATE]), None),
            live=tuple(self.brokers[broker_id] for broker_id in sorted(self.brokers)),
            known_brokers=len(self.brokers),
            settled=self.settled,
            awaited=frozenset(self.awaited - self.brokers.keys()),
            returning=self.returning,
            tiers=dict(self.tiers),
            storage={
                broker_id: self.storage[broker_id] for broker_id in self.brokers if broker_id in self.storage
            },
        )

    async def do_step(self, names: list[str], _: dict[str, str]) -> None:
        await self._step(quietly="quietly" in names)

    async def do_settle(self, names: list[str], _: dict[str, str]) -> None:
        for _step in range(MAX_STEPS):
            if not await self._step(quietly="quietly" in names):
                return
        raise AssertionError(f"not settled after {MAX_STEPS} steps")

    async def do_later(self, names: list[str], _: dict[str, str]) -> None:
        """Apply what waits until nothing else is left to do."""
        decision = decide(await self.world())
        assert not decision.actions, "something else comes first"
        for action in decision.later:
            await self._apply(action)
            if "quietly" not in names:
                self.output += describe(action)

    async def _step(self, *, quietly: bool) -> bool:
        decision = decide(await self.world())
        actions = sorted(decision.actions, key=lambda action: action.priority)
        # As the loop does: statuses wait while there is something to do.
        for action in actions or [status.patch for status in decision.statuses]:
            await self._apply(action)
            if not quietly:
                self.output += describe(action)
        return bool(actions or decision.statuses)

    async def _apply(self, action: Action) -> None:
        match action:
            case Create():
                await self.store.create(action.kind, action.object)
            case Patch():
                await self.store.patch_if(
                    action.kind,
                    action.name,
                    uid=action.uid,
                    tests=action.tests,
                    operations=action.operations,
                    subresource=action.subresource,
                )
            case Delete():
                await self.store.delete_if(action.kind, action.name, uid=action.uid, tests=action.tests)

    # -- what is there -------------------------------------------------------------------------------------------------

    async def do_show(self, names: list[str], _: dict[str, str]) -> None:
        if "sets" in names:
            for obj in (await self.store.list(PARTITION_SET))[0]:
                part = PartitionSet.from_object(obj)
                hidden = " deleting" if part.deleting else ""
                self.output.append(
                    f"{part.topic_name} slice {part.slice_index}{hidden} {part.config}".replace("'", "")
                )
                if len(part.partitions) <= 12:
                    self.output += [
                        f"  {number}: {partition_text(state.to_object())}"
                        for number, state in enumerate(part.partitions, part.first_partition)
                    ]
                else:
                    self.output.append(f"  {len(part.partitions)} partitions")
        if "topics" in names:
            for obj in (await self.store.list(TOPIC))[0]:
                finalizer = " finalizer" if FINALIZER in obj["metadata"].get("finalizers", ()) else ""
                self.output.append(f"topic {obj['metadata']['name']}{finalizer}")
        if "purged" in names:
            for obj in (await self.store.list(CLUSTER_STATE))[0]:
                self.output.append(f"purged: {len(obj['spec']['purgedTopicIds'])}")
        if "status" in names:
            for kind in (CLUSTER, TOPIC):
                for obj in (await self.store.list(kind))[0]:
                    self.output += status_text(obj)


def describe(action: Action) -> list[str]:
    lines: list[str] = []
    match action:
        case Create(kind=kind, object=obj) if kind == PARTITION_SET:
            spec = obj["spec"]
            count = len(spec["partitions"])
            lines.append(
                f"create {spec['topicName']} slice {spec['slice']}, {count} partitions, {spec['config']}".replace(
                    "'", ""
                )
            )
            if count <= 12:
                lines += [
                    f"  {n}: {partition_text(state)}"
                    for n, state in enumerate(spec["partitions"], 100 * spec["slice"])
                ]
        case Create():
            lines.append(f"create {action.kind}")
        case Patch(subresource="status"):
            lines.append(f"status of {action.kind} {action.name}")
        case Patch():
            name = (
                action.name
                if action.kind == TOPIC
                else action.name.rpartition("-")[0].rpartition("-")[0] or action.name
            )
            lines.append(f"patch {action.kind} {name}")
            for operation in action.operations:
                lines += operation_text(operation)
        case Delete():
            lines.append(f"delete {action.kind}")
    lines += [f"  ! {notice.reason}: {notice.message}" for notice in action.notices]
    return lines


def operation_text(operation: dict[str, Any]) -> list[str]:
    path: str = operation["path"]
    if operation["op"] == "remove":
        return [f"  {path}: removed"]
    value = operation["value"]
    if path == "/spec/topicEpoch":
        return []
    if path.startswith("/spec/partitions/"):
        return [f"  {path.rpartition('/')[2]}: {partition_text(value)}"]
    if path == "/spec/purgedTopicIds":
        return [f"  {path}: {len(value)} ids"]
    return [f"  {path}: {value}".replace("'", "")]


def partition_text(state: dict[str, Any]) -> str:
    def refs(entries: list[dict[str, int]]) -> str:
        return ",".join(
            f"{entry['broker']}" + (f"/{entry['generation']}" if entry["generation"] != 1 else "")
            for entry in entries
        )

    text = f"replicas {','.join(map(str, state['replicas']))} leader {state['leader']}"
    if state["leaderIncarnation"]:
        text += f"@{state['leaderIncarnation']}"
    text += f" epoch {state['leaderEpoch']} isr {refs(state['isr'])}"
    text += f" elr {refs(state['elr'])}" if state["elr"] else ""
    for key in ("adding", "removing", "target"):
        if state.get(key):
            text += f" {key} {','.join(map(str, state[key]))}"
    return text + (" recovering" if state.get("recovering") else "")


def status_text(obj: dict[str, Any]) -> list[str]:
    status = obj.get("status", {})
    shown = {
        key: value
        for key, value in status.items()
        if key not in ("conditions", "selector", "topicId", "topicName", "clusterId")
    }
    lines = [
        f"{obj['kind']} {obj['metadata']['name']} "
        + " ".join(f"{key}={value}" for key, value in shown.items())
    ]
    shown_conditions = (
        c for c in status.get("conditions", ()) if c["type"] in ("Ready", *POSITIVE) or c["status"] == "True"
    )
    lines += [f"  {c['type']}={c['status']} {c['reason']}: {c['message']}" for c in shown_conditions]
    return lines
