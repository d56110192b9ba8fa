"""What every cluster store must do: one suite for all implementations.

A subclass names the store (`open_store`); pytest collects the subclass. Tests use a store only through its
contract, so an implementation over a network passes the same text.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.unit.cluster.support import add, partition, partition_set, replace, run, topic_object

from strandline_broker.cluster.json_patch import pointer
from strandline_broker.cluster.model import (
    CLUSTER_STATE,
    LEASE,
    PARTITION_SET,
    TOPIC,
    BrokerLease,
    ClusterState,
    Endpoint,
    Object,
    PartitionSet,
)
from strandline_broker.cluster.patches import patch_partition, patch_partitions
from strandline_broker.cluster.store import (
    AlreadyExists,
    ClusterStore,
    Conflict,
    Difference,
    Event,
    EventType,
    Gone,
    Invalid,
    NotFound,
)
from strandline_broker.cluster.transitions import shrink_isr

StoreTest = Callable[[Any, ClusterStore], Awaitable[None]]


def with_store(test: StoreTest) -> Callable[[Any, Path], None]:
    """Give a test a fresh store, and close it."""

    def wrapper(self: StoreContract, tmp_path: Path) -> None:
        async def body() -> None:
            store = await self.open_store(tmp_path)
            try:
                await test(self, store)
            finally:
                await store.close()

        run(body())

    wrapper.__name__ = test.__name__
    wrapper.__doc__ = test.__doc__
    return wrapper


async def collect(events: AsyncGenerator[Event, None], count: int) -> list[Event]:
    """Return the next `count` events and close the watch."""
    found: list[Event] = []
    async with contextlib.aclosing(events):
        while len(found) < count:
            found.append(await anext(events))
    return found


def names(events: list[Event]) -> list[tuple[str, str]]:
    return [(event.type.value, event.object["metadata"]["name"]) for event in events]


async def put(store: ClusterStore, obj: Object, *operations: dict[str, Any], tests: Any = ()) -> Object:
    metadata = obj["metadata"]
    return await store.patch_if(
        obj["kind"], metadata["name"], uid=metadata["uid"], tests=tests, operations=operations
    )


class StoreContract:
    """Subclass it as `Test...`."""

    # How many events per kind the store of `open_store(place, history=...)` keeps at least; None: cannot be
    # set.
    history: int | None = None

    async def open_store(self, place: Path, *, small_history: bool = False) -> ClusterStore:
        """Return a client of the store at `place`; several calls give several clients of the same store."""
        raise AssertionError("the subclass opens the store")

    # -- create, get, list --

    @with_store
    async def test_what_was_created_can_be_read(self, store: ClusterStore) -> None:
        created = await store.create(TOPIC, topic_object("a", config={"retention.ms": "1"}))
        assert await store.get(TOPIC, "a") == created
        assert created["spec"]["config"] == {"retention.ms": "1"}
        metadata = created["metadata"]
        assert metadata["uid"]
        assert metadata["resourceVersion"]
        assert metadata["creationTimestamp"].endswith("Z")
        assert metadata["generation"] == 1

    @with_store
    async def test_what_only_the_store_sets_cannot_be_chosen(self, store: ClusterStore) -> None:
        obj = topic_object("a")
        chosen = {"uid": "mine", "generation": 7, "deletionTimestamp": "2020-01-01T00:00:00Z"}
        obj["metadata"].update(chosen, creationTimestamp="2020-01-01T00:00:00Z")
        metadata = (await store.create(TOPIC, obj))["metadata"]
        assert metadata["uid"] != "mine"
        assert metadata["generation"] == 1
        assert "deletionTimestamp" not in metadata
        assert metadata["creationTimestamp"] != "2020-01-01T00:00:00Z"

    @with_store
    async def test_every_kind_of_the_model_survives_the_store(self, store: ClusterStore) -> None:
        part = partition_set(partition(1, 2, 3), partition(2, 3, 1, recovering=True))
        stored = PartitionSet.from_object(await store.create(PARTITION_SET, part.to_object()))
        assert (stored.partitions, stored.topic_id, stored.cluster) == (part.partitions, part.topic_id, "dev")
        lease = BrokerLease(
            1, "start", 2**53 - 1, {"PLAIN": Endpoint("h", 9092)}, rack="r", cluster="dev",
            acquire_time="2026-01-01T00:00:00.000000Z", renew_time="2026-01-01T00:00:00.000000Z",
        )  # fmt: skip
        found = BrokerLease.from_object(await store.create(LEASE, lease.to_object()))
        assert (found.listeners, found.generation, found.rack) == (lease.listeners, 2**53 - 1, "r")
        state = ClusterState("dev", group_configs={"g/~1": {"a": "b"}})
        kept = ClusterState.from_object(await store.create(CLUSTER_STATE, state.to_object()))
        assert kept.group_configs == {"g/~1": {"a": "b"}}

    @with_store
    async def test_a_cluster_gets_its_id_once(self, store: ClusterStore) -> None:
        obj = await store.create(CLUSTER_STATE, ClusterState("dev").to_object())
        unset = [("/spec/clusterId", None)]
        await put(store, obj, add("/spec/clusterId", "first"), tests=unset)
        with pytest.raises(Conflict):
            await put(store, obj, add("/spec/clusterId", "second"), tests=unset)
        stored = await store.get(CLUSTER_STATE, obj["metadata"]["name"])
        assert ClusterState.from_object(stored).cluster_id == "first"

    @with_store
    async def test_a_lease_always_has_a_spec_to_test(self, store: ClusterStore) -> None:
        bare = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "bare"}}
        created = await store.create(LEASE, bare)
        assert created["spec"] == {}
        holder = add("/spec/holderIdentity", "me")
        taken = await put(store, created, holder, tests=[("/spec/holderIdentity", None)])
        assert taken["spec"] == {"holderIdentity": "me"}

    @with_store
    async def test_what_does_not_exist_is_not_found(self, store: ClusterStore) -> None:
        with pytest.raises(NotFound):
            await store.get(TOPIC, "a")
        with pytest.raises(NotFound):
            await store.patch_if(TOPIC, "a", uid="u", tests=[], operations=[replace("/spec/partitions", 2)])
        with pytest.raises(NotFound):
            await store.delete_if(TOPIC, "a", uid="u")

    @with_store
    async def test_a_name_is_taken_once_per_kind(self, store: ClusterStore) -> None:
        await store.create(TOPIC, topic_object("dev"))
        await store.create(CLUSTER_STATE, ClusterState("dev").to_object())
        with pytest.raises(AlreadyExists):
            await store.create(TOPIC, topic_object("dev"))

    @pytest.mark.parametrize(
        "change",
        [
            {"kind": "Cluster"},
            {"apiVersion": "v1"},
            {"metadata": {"name": "Upper"}},
            {"metadata": {"name": "a_b"}},
            {"metadata": {"name": ""}},
            {"metadata": {"name": "a", "resourceVersion": "5"}},
            {"metadata": {"name": "a", "labels": {"x": 1}}},
        ],
    )
    def test_what_kubernetes_would_refuse_is_refused(self, tmp_path: Path, change: dict[str, Any]) -> None:
        async def body() -> None:
            store = await self.open_store(tmp_path)
            with pytest.raises(Invalid):
                await store.create(TOPIC, {**topic_object("a"), **change})
            assert (await store.list(TOPIC))[0] == []
            await store.close()

        run(body())

    @with_store
    async def test_a_list_is_ordered_and_of_one_kind(self, store: ClusterStore) -> None:
        for name in ("c", "a", "b"):
            await store.create(TOPIC, topic_object(name))
        await store.create(CLUSTER_STATE, ClusterState("aa").to_object())
        objects, _ = await store.list(TOPIC)
        assert [obj["metadata"]["name"] for obj in objects] == ["a", "b", "c"]

    @with_store
    async def test_results_are_the_callers_own(self, store: ClusterStore) -> None:
        mine = topic_object("a", config={})
        created = await store.create(TOPIC, mine)
        mine["spec"]["config"]["x"] = "y"
        created["spec"]["config"]["x"] = "y"
        assert (await store.get(TOPIC, "a"))["spec"]["config"] == {}

    @with_store
    async def test_a_uid_never_repeats(self, store: ClusterStore) -> None:
        seen = set()
        for _ in range(5):
            created = await store.create(TOPIC, topic_object("a"))
            uid = created["metadata"]["uid"]
            assert uid not in seen
            seen.add(uid)
            await store.delete_if(TOPIC, "a", uid=uid)
        await store.create(TOPIC, topic_object("a"))
        with pytest.raises(Conflict) as caught:
            await store.delete_if(TOPIC, "a", uid=seen.pop())
        assert caught.value.differences[0].pointer == "/metadata/uid"

    # -- patch_if --

    @with_store
    async def test_a_patch_applies_all_operations_in_order(self, store: ClusterStore) -> None:
        created = await store.create(TOPIC, topic_object("a", config={"x": "1"}))
        patched = await put(
            store,
            created,
            add("/spec/config/y~1z", "2"),
            {"op": "remove", "path": "/spec/config/x"},
            replace("/spec/partitions", 7),
        )
        assert patched["spec"]["config"] == {"y/z": "2"}
        assert patched["spec"]["partitions"] == 7
        assert await store.get(TOPIC, "a") == patched
        assert patched["metadata"]["resourceVersion"] != created["metadata"]["resourceVersion"]

    @with_store
    async def test_all_tests_must_hold_and_the_conflict_says_which_did_not(self, store: ClusterStore) -> None:
        created = await store.create(TOPIC, topic_object("a", partitions=3, config={"x": "1"}))
        operations = [replace("/spec/partitions", 4)]
        with pytest.raises(Conflict) as caught:
            await put(
                store,
                created,
                *operations,
                tests=[("/spec/partitions", 3), ("/spec/config/x", "2"), ("/spec/config", {"x": "3"})],
            )
        assert caught.value.differences == (
            Difference("/spec/config/x", "2", "1"),
            Difference("/spec/config", {"x": "3"}, {"x": "1"}),
        )
        assert await store.get(TOPIC, "a") == created
        patched = await put(
            store, created, *operations, tests=[("/spec/partitions", 3), ("/spec/config", {"x": "1"})]
        )
        assert patched["spec"]["partitions"] == 4

    @with_store
    async def test_a_test_for_nothing_holds_only_where_nothing_is(self, store: ClusterStore) -> None:
        created = await store.create(TOPIC, topic_object("a", config={}))
        once = await put(store, created, add("/spec/config/x", "1"), tests=[("/spec/config/x", None)])
        assert once["spec"]["config"] == {"x": "1"}
        with pytest.raises(Conflict):
            await put(store, created, add("/spec/config/x", "2"), tests=[("/spec/config/x", None)])

    @with_store
    async def test_below_nothing_no_test_holds(self, store: ClusterStore) -> None:
        created = await store.create(TOPIC, topic_object("a"))
        for path in ("/spec/config/x", "/metadata/annotations/x", "/spec/partitions/x"):
            with pytest.raises(Conflict) as caught:
                await put(store, created, replace("/spec/partitions", 2), tests=[(path, None)])
            assert caught.value.differences == (Difference(path, None, None),)

    @with_store
    async def test_any_text_can_be_tested(self, store: ClusterStore) -> None:
        texts = [
            "<a> & 'b' \"c\"",
            "tab\t bell\x07 del\x7f back\b form\f",
            "\u2028 \u2029",
            "\u00e4\u20ac\U0001f600",
            "\\u003c/~1",
        ]
        created = await store.create(CLUSTER_STATE, ClusterState("dev").to_object())
        for text in texts:
            configs = {text: {"x": text}}
            created = await put(store, created, replace("/spec/groupConfigs", configs))
            created = await put(
                store,
                created,
                replace("/spec/nextProducerIdBlock", len(text)),
                tests=[("/spec/groupConfigs", configs), (pointer("spec", "groupConfigs", text, "x"), text)],
            )
            with pytest.raises(Conflict):
                await put(
                    store,
                    created,
                    replace("/spec/nextProducerIdBlock", 0),
                    tests=[("/spec/groupConfigs", {text: {"x": text + "."}})],
                )

    @with_store
    async def test_a_test_among_the_operations_must_hold_too(self, store: ClusterStore) -> None:
        created = await store.create(TOPIC, topic_object("a"))
        with pytest.raises(Conflict):
            await put(
                store,
                created,
                replace("/spec/partitions", 2),
                {"op": "test", "path": "/spec/partitions", "value": 1},
            )
        assert await store.get(TOPIC, "a") == created

    @with_store
    async def test_true_is_not_one(self, store: ClusterStore) -> None:
        part = PartitionSet.from_object(
            await store.create(PARTITION_SET, partition_set(partition(1)).to_object())
        )
        with pytest.raises(Conflict):
            await store.patch_if(
                PARTITION_SET,
                part.name,
                uid=part.uid,
                tests=[("/spec/deleting", 0)],
                operations=[replace("/spec/topicEpoch", 1)],
            )

    @with_store
    async def test_a_patch_for_another_uid_conflicts(self, store: ClusterStore) -> None:
        old = await store.create(TOPIC, topic_object("a"))
        await store.delete_if(TOPIC, "a", uid=old["metadata"]["uid"])
        new = await store.create(TOPIC, topic_object("a"))
        with pytest.raises(Conflict):
            await put(store, old, replace("/spec/partitions", 9))
        assert await store.get(TOPIC, "a") == new

    @with_store
    async def test_an_operation_that_cannot_be_applied_is_invalid_and_changes_nothing(
        self, store: ClusterStore
    ) -> None:
        created = await store.create(TOPIC, topic_object("a"))
        for bad in (
            replace("/spec/nothing", 1),
            {"op": "remove", "path": "/spec/nothing"},
            add("/spec/nothing/deep", 1),
            replace("/metadata/name", "b"),
            replace("/kind", "Cluster"),
        ):
            with pytest.raises(Invalid):
                await put(store, created, replace("/spec/partitions", 9), bad)
        assert await store.get(TOPIC, "a") == created

    @with_store
    async def test_a_patch_that_changes_nothing_makes_no_version_and_no_event(
        self, store: ClusterStore
    ) -> None:
        created = await store.create(TOPIC, topic_object("a"))
        _, version = await store.list(TOPIC)
        same = await put(store, created, replace("/spec/partitions", 1))
        assert same == created
        await put(store, created, replace("/spec/partitions", 2))
        (event,) = await collect(store.watch(TOPIC, version), 1)
        assert event.object["spec"]["partitions"] == 2

    @with_store
    async def test_writers_of_different_partitions_do_not_conflict(self, store: ClusterStore) -> None:
        part = PartitionSet.from_object(
            await store.create(PARTITION_SET, partition_set(partition(1, 2), partition(2, 1)).to_object())
        )
        for index, gone in ((0, 2), (1, 1)):
            state = shrink_isr(part.partition(index), out_of_sync=[gone], min_isr=1)
            tests, operations = patch_partition(part, index, state)
            await store.patch_if(PARTITION_SET, part.name, uid=part.uid, tests=tests, operations=operations)
        after = PartitionSet.from_object(await store.get(PARTITION_SET, part.name))
        assert [state.isr_ids for state in after.partitions] == [(1,), (2,)]
        assert [state.partition_epoch for state in after.partitions] == [11, 11]
        both = {
            index: shrink_isr(part.partition(index), out_of_sync=[gone], min_isr=1)
            for index, gone in ((0, 2), (1, 1))
        }
        stale = patch_partitions(part, both)
        with pytest.raises(Conflict) as caught:
            await store.patch_if(PARTITION_SET, part.name, uid=part.uid, tests=stale[0], operations=stale[1])
        assert caught.value.differences == (
            Difference("/spec/partitions/0/partitionEpoch", 10, 11),
            Difference("/spec/partitions/1/partitionEpoch", 10, 11),
        )

    def test_of_many_writers_exactly_one_wins_each_epoch(self, tmp_path: Path) -> None:
        writers, rounds = 6, 10

        async def write(store: ClusterStore, uid: str, epoch: int) -> bool:
            try:
                await store.patch_if(
                    CLUSTER_STATE,
                    "dev",
                    uid=uid,
                    tests=[("/spec/nextProducerIdBlock", epoch)],
                    operations=[replace("/spec/nextProducerIdBlock", epoch + 1)],
                )
            except Conflict:
                return False
            return True

        async def body() -> None:
            stores = [await self.open_store(tmp_path) for _ in range(writers)]
            created = await stores[0].create(CLUSTER_STATE, ClusterState("dev").to_object())
            uid = created["metadata"]["uid"]
            for epoch in range(rounds):
                won = await asyncio.gather(*(write(store, uid, epoch) for store in stores))
                assert won.count(True) == 1
            for store in stores:
                await store.close()

        run(body())

    # -- generation and status --

    @with_store
    async def test_generation_counts_changes_of_the_spec_only(self, store: ClusterStore) -> None:
        obj = await store.create(TOPIC, topic_object("a"))
        obj = await put(store, obj, add("/metadata/labels", {"x": "y"}))
        assert obj["metadata"]["generation"] == 1
        obj = await put(store, obj, replace("/spec/partitions", 2))
        assert obj["metadata"]["generation"] == 2
        obj = await store.patch_if(
            TOPIC, "a", uid=obj["metadata"]["uid"], tests=[], operations=[add("/status", {"topicName": "a"})],
            subresource="status",
        )  # fmt: skip
        assert obj["metadata"]["generation"] == 2

    @with_store
    async def test_spec_and_status_are_written_separately(self, store: ClusterStore) -> None:
        obj = await store.create(TOPIC, {**topic_object("a"), "status": {"topicName": "forged"}})
        assert "status" not in obj
        uid = obj["metadata"]["uid"]
        both = [add("/status", {"topicName": "a"}), replace("/spec/partitions", 5)]
        obj = await store.patch_if(TOPIC, "a", uid=uid, tests=[], operations=both, subresource="status")
        assert (obj["status"], obj["spec"]["partitions"]) == ({"topicName": "a"}, 1)
        both = [replace("/status/topicName", "b"), replace("/spec/partitions", 5)]
        obj = await store.patch_if(TOPIC, "a", uid=uid, tests=[("/status/topicName", "a")], operations=both)
        assert (obj["status"], obj["spec"]["partitions"]) == ({"topicName": "a"}, 5)

    @with_store
    async def test_a_kind_without_status_has_no_status_to_patch(self, store: ClusterStore) -> None:
        obj = await store.create(CLUSTER_STATE, ClusterState("dev").to_object())
        with pytest.raises((Invalid, NotFound)):
            await store.patch_if(
                CLUSTER_STATE, "dev", uid=obj["metadata"]["uid"], tests=[], operations=[add("/status", {})],
                subresource="status",
            )  # fmt: skip

    # -- deletion --

    @with_store
    async def test_delete_tests_what_the_decision_read(self, store: ClusterStore) -> None:
        obj = await store.create(TOPIC, topic_object("a"))
        uid = obj["metadata"]["uid"]
        with pytest.raises(Conflict) as caught:
            await store.delete_if(TOPIC, "a", uid=uid, tests=[("/spec/partitions", 2)])
        assert caught.value.differences == (Difference("/spec/partitions", 2, 1),)
        await store.delete_if(TOPIC, "a", uid=uid, tests=[("/spec/partitions", 1)])
        with pytest.raises(NotFound):
            await store.get(TOPIC, "a")

    @with_store
    async def test_finalizers_hold_a_deleted_object_until_the_last_is_gone(self, store: ClusterStore) -> None:
        keepers = ("strandline.io/a", "strandline.io/b")
        obj = await store.create(TOPIC, topic_object("a", finalizers=keepers))
        _, version = await store.list(TOPIC)
        uid = obj["metadata"]["uid"]
        await store.delete_if(TOPIC, "a", uid=uid)
        marked = await store.get(TOPIC, "a")
        assert marked["metadata"]["deletionTimestamp"].endswith("Z")
        await store.delete_if(TOPIC, "a", uid=uid)
        assert await store.get(TOPIC, "a") == marked
        with pytest.raises(AlreadyExists):
            await store.create(TOPIC, topic_object("a"))
        with pytest.raises(Invalid):
            await put(store, obj, add("/metadata/finalizers/-", "strandline.io/c"))
        await put(store, obj, {"op": "remove", "path": "/metadata/finalizers/0"})
        assert (await store.get(TOPIC, "a"))["metadata"]["finalizers"] == ["strandline.io/b"]
        await put(store, obj, {"op": "remove", "path": "/metadata/finalizers"})
        with pytest.raises(NotFound):
            await store.get(TOPIC, "a")
        events = await collect(store.watch(TOPIC, version), 3)
        assert [event.type for event in events] == [EventType.MODIFIED, EventType.MODIFIED, EventType.DELETED]

    @with_store
    async def test_nobody_can_ask_for_deletion_by_patch(self, store: ClusterStore) -> None:
        obj = await store.create(TOPIC, topic_object("a", finalizers=("strandline.io/a",)))
        with contextlib.suppress(Invalid):  # an API server ignores it instead
            await put(store, obj, add("/metadata/deletionTimestamp", "2026-01-01T00:00:00Z"))
        assert "deletionTimestamp" not in (await store.get(TOPIC, "a"))["metadata"]

    # -- watch --

    @with_store
    async def test_a_watch_from_a_list_sees_every_change_after_it(self, store: ClusterStore) -> None:
        first = await store.create(TOPIC, topic_object("a"))
        _, version = await store.list(TOPIC)
        await put(store, first, replace("/spec/partitions", 2))
        second = await store.create(TOPIC, topic_object("b"))
        await store.delete_if(TOPIC, "a", uid=first["metadata"]["uid"])
        await put(store, second, replace("/spec/partitions", 3))
        events = await collect(store.watch(TOPIC, version), 4)
        assert names(events) == [("MODIFIED", "a"), ("ADDED", "b"), ("DELETED", "a"), ("MODIFIED", "b")]
        assert events[0].object["spec"]["partitions"] == 2
        resumed = await collect(store.watch(TOPIC, events[1].version), 2)
        assert resumed == events[2:]

    @with_store
    async def test_a_watch_waits_for_changes_and_sees_its_kind_only(self, store: ClusterStore) -> None:
        _, version = await store.list(TOPIC)
        watching = asyncio.create_task(collect(store.watch(TOPIC, version), 2))
        await store.create(CLUSTER_STATE, ClusterState("dev").to_object())
        await store.create(TOPIC, topic_object("a"))
        await store.create(TOPIC, topic_object("b"))
        assert names(await watching) == [("ADDED", "a"), ("ADDED", "b")]

    def test_all_watchers_of_all_clients_see_one_order(self, tmp_path: Path) -> None:
        count = 12

        async def body() -> None:
            stores = [await self.open_store(tmp_path) for _ in range(3)]
            _, version = await stores[0].list(TOPIC)
            watches = [
                asyncio.create_task(collect(store.watch(TOPIC, version), count))
                for store in stores
                for _ in range(2)
            ]
            await asyncio.gather(
                *(stores[index % 3].create(TOPIC, topic_object(f"t{index}")) for index in range(count))
            )
            seen = await asyncio.gather(*watches)
            assert all(events == seen[0] for events in seen)
            assert sorted(event.object["metadata"]["name"] for event in seen[0]) == sorted(
                f"t{index}" for index in range(count)
            )
            for store in stores:
                await store.close()

        run(body())

    @with_store
    async def test_a_version_that_never_was_is_gone(self, store: ClusterStore) -> None:
        with pytest.raises(Gone):
            await collect(store.watch(TOPIC, "not-a-version"), 1)

    def test_a_version_older_than_the_history_is_gone(self, tmp_path: Path) -> None:
        history = self.history
        if history is None:
            pytest.skip("the history of this store cannot be bounded by a test")

        async def body() -> None:
            store = await self.open_store(tmp_path, small_history=True)
            obj = await store.create(TOPIC, topic_object("a"))
            _, old = await store.list(TOPIC)
            await store.create(CLUSTER_STATE, ClusterState("dev").to_object())
            _, state_version = await store.list(CLUSTER_STATE)
            for count in range(2, 2 * history + 2):
                obj = await put(store, obj, replace("/spec/partitions", count))
            with pytest.raises(Gone):
                await collect(store.watch(TOPIC, old), 1)
            # Changes of one kind do not cost another kind its history.
            watching = asyncio.create_task(collect(store.watch(CLUSTER_STATE, state_version), 1))
            state = await store.get(CLUSTER_STATE, "dev")
            await put(store, state, replace("/spec/nextProducerIdBlock", 1))
            assert names(await watching) == [("MODIFIED", "dev")]
            # Nor is what was just listed ever gone.
            objects, version = await store.list(TOPIC)
            await put(store, objects[0], replace("/spec/partitions", 1000))
            assert names(await collect(store.watch(TOPIC, version), 1)) == [("MODIFIED", "a")]
            await store.close()

        run(body())

    @with_store
    async def test_closing_a_watch_leaves_the_store_usable(self, store: ClusterStore) -> None:
        _, version = await store.list(TOPIC)
        events = store.watch(TOPIC, version)
        waiting = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await events.aclose()
        await store.create(TOPIC, topic_object("a"))
        assert names(await collect(store.watch(TOPIC, version), 1)) == [("ADDED", "a")]
