"""Pure transitions of cluster state, shared by operator, brokers, tests, simulator and model checker.

Import from here. Each takes a frozen state and what was observed, and returns a new state; none reads a
clock, a store or a network. `rules` holds the rules they keep, one predicate each.
"""

from __future__ import annotations

from .assignment import Load, NotEnoughBrokers, assign, assign_replicas, new_partition
from .election import Election, Outcome, elect, has_valid_leader, react, recovered, renew_epoch
from .factor import with_factor
from .isr import depose, does_without, fence, grow_isr, may_join_isr, shrink_isr, spared, step_down
from .reassignment import (
    advance_reassignment,
    begin_reassignment,
    cancel_reassignment,
    is_moving,
    is_reassigning,
    may_drop_old_replicas,
    request_reassignment,
    start_reassignment,
    target_of,
)
from .rules import (
    RULES,
    FollowerProgress,
    Live,
    Rules,
    effective_min_isr,
    high_watermark_replicas,
    may_advance_high_watermark,
)
from .topic import add_partitions, change_config, mark_deleting, unmark_deleting

__all__ = [
    "RULES",
    "Election",
    "FollowerProgress",
    "Live",
    "Load",
    "NotEnoughBrokers",
    "Outcome",
    "Rules",
    "add_partitions",
    "advance_reassignment",
    "assign",
    "assign_replicas",
    "begin_reassignment",
    "cancel_reassignment",
    "change_config",
    "depose",
    "does_without",
    "effective_min_isr",
    "elect",
    "fence",
    "grow_isr",
    "has_valid_leader",
    "high_watermark_replicas",
    "is_moving",
    "is_reassigning",
    "mark_deleting",
    "may_advance_high_watermark",
    "may_drop_old_replicas",
    "may_join_isr",
    "new_partition",
    "react",
    "recovered",
    "renew_epoch",
    "request_reassignment",
    "shrink_isr",
    "spared",
    "start_reassignment",
    "step_down",
    "target_of",
    "unmark_deleting",
    "with_factor",
]
