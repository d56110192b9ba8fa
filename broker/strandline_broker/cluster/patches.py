"""Patches of cluster objects: what each writer tests and what it changes.

Operator and brokers build every write of a PartitionSet here, so that no decision is stored without testing
what it was made from. Pass the result to `ClusterStore.patch_if(PARTITION_SET, ps.name, uid=ps.uid,
tests=..., operations=...)`: the UID is tested by the store itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from .json_patch import pointer
from .model import PartitionSet, PartitionState
from .store import Operation, Test


class Patch(NamedTuple):
    """Arguments for `ClusterStore.patch_if`."""

    tests: list[Test]
    operations: list[Operation]


def patch_partition(ps: PartitionSet, index: int, new_state: PartitionState) -> Patch:
    """Return the patch that replaces partition number `index`, see `patch_partitions`."""
    return patch_partitions(ps, {index: new_state})


def patch_partitions(ps: PartitionSet, new_states: Mapping[int, PartitionState]) -> Patch:
    """Return the patch that replaces partitions, by number, decided from `ps`.

    It tests each touched partition's `partitionEpoch`, so writers of different partitions never conflict, and
    `topicEpoch`: the ELR of the new state follows from `min.insync.replicas`, and must not be stored after
    that setting changed. Raises ValueError when a new state does not have a higher partition epoch.
    """
    tests: list[Test] = [("/spec/topicEpoch", ps.topic_epoch)]
    operations: list[Operation] = []
    for index, state in sorted(new_states.items()):
        position = ps.position_of(index)
        old = ps.partitions[position]
        if state.partition_epoch <= old.partition_epoch:
            raise ValueError(f"partition {index} of {ps.topic_name} changed without a new partition epoch")
        tests.append((pointer("spec", "partitions", position, "partitionEpoch"), old.partition_epoch))
        operations.append(
            {"op": "replace", "path": pointer("spec", "partitions", position), "value": state.to_object()}
        )
    return Patch(tests, operations)


def patch_topic_epoch(old: PartitionSet, new: PartitionSet) -> Patch:
    """Return the patch from `old` to `new` where config, `deleting` or the number of partitions changed.

    Tests `topicEpoch`, and the `partitionEpoch` of every partition that differs too (see
    `transitions.change_config`). Partitions are only ever appended. Raises ValueError when `new` does not
    have the next topic epoch, or fewer partitions.
    """
    if new.topic_epoch != old.topic_epoch + 1:
        raise ValueError(f"{old.name} changed without the next topic epoch")
    if len(new.partitions) < len(old.partitions):
        raise ValueError(f"{old.name} lost partitions")
    changed = {
        old.first_partition + position: state
        for position, (before, state) in enumerate(zip(old.partitions, new.partitions, strict=False))
        if state != before
    }
    tests, operations = patch_partitions(old, changed)
    operations.append({"op": "replace", "path": "/spec/topicEpoch", "value": new.topic_epoch})
    before_spec, after_spec = old.spec_object(), new.spec_object()
    for key in ("config", "deleting", "deletingSince"):
        if before_spec.get(key) == after_spec.get(key):
            continue
        if key in after_spec:
            operations.append({"op": "add", "path": pointer("spec", key), "value": after_spec[key]})
        else:
            operations.append({"op": "remove", "path": pointer("spec", key)})
    operations += [
        {"op": "add", "path": "/spec/partitions/-", "value": state.to_object()}
        for state in new.partitions[len(old.partitions) :]
    ]
    return Patch(tests, operations)
