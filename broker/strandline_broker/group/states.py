"""States of a classic group.

```
                 all members gone, or removed from the group
          +----------------------------------------------------+
          v                                                    |
       EMPTY ----------- first member joins ---------> PREPARING_REBALANCE <------------------+
          |                                                |        ^                         |
          |                      everybody joined, or time is up    | a member joins, leaves, |
          |                                                v        | fails, changes          | the same
          |                                       COMPLETING_REBALANCE                        |
          |                                                |                                  |
          |                       leader's assignment is committed                            |
          |                                                v                                  |
          |                                             STABLE -------------------------------+
          v
        DEAD   from every state: deleted, expired, or the partition went to another broker
```

| state | join | sync | heartbeat | leave | commit by a member |
|---|---|---|---|---|---|
| EMPTY | new: parked | UNKNOWN_MEMBER_ID | UNKNOWN_MEMBER_ID | UNKNOWN_MEMBER_ID | UNKNOWN_MEMBER_ID |
| PREPARING_REBALANCE | parked | REBALANCE_IN_PROGRESS | REBALANCE_IN_PROGRESS | removed | accepted |
| COMPLETING_REBALANCE | same metadata: answered; else rebalance | parked | accepted | rebalance | REBALANCE_IN_PROGRESS |
| STABLE | follower, same metadata: answered; else rebalance | current assignment | accepted | rebalance | accepted |

Commits without member and generation ("simple" consumers, administrators) are accepted in EMPTY only.

Source: Kafka 4.2, `ClassicGroupState`.
"""

from __future__ import annotations

from enum import Enum


class GroupState(Enum):
    """A state; its value is the name that ListGroups and DescribeGroups show."""

    EMPTY = "Empty"
    PREPARING_REBALANCE = "PreparingRebalance"
    COMPLETING_REBALANCE = "CompletingRebalance"
    STABLE = "Stable"
    DEAD = "Dead"


#: From which states each state may be entered.
PREVIOUS_STATES: dict[GroupState, frozenset[GroupState]] = {
    GroupState.EMPTY: frozenset({GroupState.PREPARING_REBALANCE}),
    GroupState.PREPARING_REBALANCE: frozenset(
        {GroupState.STABLE, GroupState.COMPLETING_REBALANCE, GroupState.EMPTY}
    ),
    GroupState.COMPLETING_REBALANCE: frozenset({GroupState.PREPARING_REBALANCE}),
    GroupState.STABLE: frozenset({GroupState.COMPLETING_REBALANCE}),
    GroupState.DEAD: frozenset(GroupState),
}
