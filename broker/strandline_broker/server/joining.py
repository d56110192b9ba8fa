"""What a broker that comes up waits for among others, and for how long.

Used by `server.broker`, in this order: what the cluster is now, its own Lease, and in the end itself, where nobody needs it
yet. While the store is away a broker serves from what it knew last (invariant 3): nothing here waits longer for the store
than `STALE_AFTER_S` before partitions are served, unless nothing is known at all.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from strandline_broker.cluster.lease_keeper import LeaseKeeper
    from strandline_broker.cluster.view import ClusterView

logger = logging.getLogger(__name__)

STALE_AFTER_S: Final = 2.0
"""How long a start waits for the cluster store when the last known cluster state would do."""


async def hear_of_cluster(view: ClusterView, *, knows_cluster: bool) -> None:
    """Learn what the cluster is now, before any client can ask; `knows_cluster`: the view has its last known state.

    Without a saved state one would tell them that their topics do not exist, and with one who led when it was saved:
    that is only good enough while the store does not answer.
    """
    try:
        await view.wait_fresh(STALE_AFTER_S if knows_cluster else None)
    except TimeoutError:
        logger.warning("the cluster store does not answer; serving from the last known cluster state")


async def take_lease(
    keeper: LeaseKeeper, view: ClusterView, take_roles: Callable[[], Awaitable[None]]
) -> None:
    """Take the Lease, and only then lead and follow; unless the store is away: brokers serve without it (invariant 3).

    A leader would else find the Lease of the last life, take a follower for one that runs, and take it into an ISR that
    the controller takes it out of a moment later. Returns when both are done. Raises Invalid, and what `take_roles` does.
    """
    acquiring = asyncio.get_running_loop().create_task(keeper.acquire())
    try:
        await asyncio.wait((acquiring,), timeout=STALE_AFTER_S if view.fresh_since is not None else 0.0)
        await take_roles()
        await acquiring
    finally:
        acquiring.cancel()


async def while_nobody_waits(
    preparing: asyncio.Future[None], view: ClusterView, is_awaited: Callable[[], bool]
) -> None:
    """Wait for `preparing`, whatever comes of it, until a change of the view makes `is_awaited` true."""
    awaited = asyncio.get_running_loop().create_task(view.wait_until(lambda _: is_awaited()))
    try:
        await asyncio.wait((preparing, awaited), return_when=asyncio.FIRST_COMPLETED)
    finally:
        awaited.cancel()
