"""Producer ids in blocks, allocated from ClusterState by compare-and-swap.

Brokers call `allocate_block` to keep a block in reserve; a block whose allocation was interrupted is simply
never used. Source: KIP-730 (blocks of 1,000 ids).
"""

from __future__ import annotations

import asyncio
import random
from typing import Final

from .backoff import Backoff
from .model import CLUSTER_STATE, ClusterState, cluster_state_name
from .store import ClusterStore, Conflict, Unavailable

BLOCK_SIZE: Final = 1_000
_MAX_ID: Final = (1 << 63) - 1
_MAX_ATTEMPTS: Final = 32


def next_block(state: ClusterState) -> range:
    """Return the ids of the block that comes next. Raises OverflowError when int64 has no more."""
    first = state.next_producer_id_block * BLOCK_SIZE
    if first + BLOCK_SIZE - 1 > _MAX_ID:
        raise OverflowError("all producer ids have been given out")
    return range(first, first + BLOCK_SIZE)


async def allocate_block(store: ClusterStore, cluster: str, *, rng: random.Random | None = None) -> range:
    """Take the next block of producer ids of `cluster` and return it: nobody else gets these ids.

    Never creates a missing ClusterState: a fresh one would give out the same ids again. Raises NotFound then,
    and Unavailable when the store is away or too many brokers allocate at once.
    """
    backoff = Backoff(rng if rng is not None else random.SystemRandom(), first_s=0.005, cap_s=0.5)
    name = cluster_state_name(cluster)
    for _ in range(_MAX_ATTEMPTS):
        state = ClusterState.from_object(await store.get(CLUSTER_STATE, name))
        block = next_block(state)
        number = state.next_producer_id_block
        try:
            await store.patch_if(
                CLUSTER_STATE,
                name,
                uid=state.uid,
                tests=[("/spec/nextProducerIdBlock", number)],
                operations=[{"op": "replace", "path": "/spec/nextProducerIdBlock", "value": number + 1}],
            )
        except Conflict:
            await asyncio.sleep(backoff.next_s())
        else:
            return block
    raise Unavailable(f"{_MAX_ATTEMPTS} attempts to allocate producer ids lost against other brokers")
