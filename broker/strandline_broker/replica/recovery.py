"""What a leader has to do first where an election may have lost records that the bucket holds, or all there is lies there.

The cluster store says so with `PartitionState.recovering` (design sections 3.3 and 7.3), and the leader, whichever it is,
takes it from there. Pure.

    NONE ◀──recovered── LOG, OFFSETS ◀──elected while the store says `recovering`

Who uses it: `ReplicaManager` decides it, `Partition` keeps it for the epoch; the archiver ends LOG, the group coordinator
OFFSETS. When `Leadership` knows that all in sync hold what was recovered, `IsrKeeper` tells the store.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from strandline_broker.cluster.model import PartitionState


class Recovery(Enum):
    """What is still to be done.

    LOG: nothing is served, and nothing taken, before the log agrees with the bucket and a manifest of this epoch is
    confirmed there; neither clients nor followers find a leader. OFFSETS: groups wait until their committed offsets are
    loaded from a snapshot in the bucket; the log itself, which is compacted and in no bucket, is led as usual.
    """

    NONE = "none"
    LOG = "log"
    OFFSETS = "offsets"


def recovery_of(
    state: PartitionState, *, has_bucket: bool, is_tiered: bool, has_group_offsets: bool
) -> Recovery:
    """Return what the leader of `state` has to do first.

    `is_tiered`: the partition has, or should have, a part in the bucket. `has_group_offsets`: it is one of
    `__consumer_offsets`. Where neither holds, or this broker has no bucket, there is nothing that could be recovered.
    """
    if not state.recovering or not has_bucket:
        return Recovery.NONE
    if is_tiered:
        return Recovery.LOG
    return Recovery.OFFSETS if has_group_offsets else Recovery.NONE
