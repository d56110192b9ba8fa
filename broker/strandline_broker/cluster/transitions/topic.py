"""Changes of a PartitionSet outside its partitions; each raises `topic_epoch` by one.

The controller stores the results with `patches.patch_topic_epoch`. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from strandline_broker.cluster.model import SLICE_SIZE, PartitionSet, PartitionState

from .isr import with_isr
from .rules import RULES, Rules


def change_config(ps: PartitionSet, config: dict[str, str], *, rules: Rules = RULES) -> PartitionSet:
    """Return the slice with another effective configuration.

    Where the ISR reaches a lowered `min.insync.replicas`, the ELR goes in the same write: the leader reads
    setting, ISR and ELR from one object version, and may move the high watermark past former members as soon
    as it sees the lower minimum. Raises ValueError when the setting is no number.
    """
    if config == ps.config:
        return ps
    changed = replace(ps, config=dict(config), topic_epoch=ps.topic_epoch + 1)
    partitions = tuple(
        # A raised minimum makes nobody eligible: whoever left before may have missed acknowledged records.
        with_isr(state, state.isr, min_isr=changed.min_insync_replicas, rules=rules)
        for state in ps.partitions
    )
    return replace(changed, partitions=partitions)


def mark_deleting(ps: PartitionSet, since: str) -> PartitionSet:
    """Hide the topic from clients; `since` (RFC 3339) starts its grace period."""
    if ps.deleting:
        return ps
    return replace(ps, deleting=True, deleting_since=since, topic_epoch=ps.topic_epoch + 1)


def unmark_deleting(ps: PartitionSet) -> PartitionSet:
    """Bring a topic back within its grace period."""
    if not ps.deleting:
        return ps
    return replace(ps, deleting=False, deleting_since=None, topic_epoch=ps.topic_epoch + 1)


def add_partitions(ps: PartitionSet, states: Sequence[PartitionState]) -> PartitionSet:
    """Append new partitions. Raises ValueError above `SLICE_SIZE`: the rest belongs into the next slice."""
    if len(ps.partitions) + len(states) > SLICE_SIZE:
        raise ValueError(f"{ps.name} has {len(ps.partitions)} partitions; a slice takes {SLICE_SIZE}")
    if not states:
        return ps
    return replace(ps, partitions=(*ps.partitions, *states), topic_epoch=ps.topic_epoch + 1)
