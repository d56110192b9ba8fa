"""What one broker knows of its own volume: whose it is, how its last life ended, and the last known cluster state.

Used by `server.broker` at start and stop. The order at start is what makes identity safe (design invariant 8): identity is
checked before a log is touched, logs are recovered before the log generation is decided, and the generation is on disk
before anybody hears of it.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from strandline_broker.cluster.model import CLUSTER_STATE, MALFORMED, ClusterState, cluster_state_name
from strandline_broker.cluster.store import NotFound, Unavailable
from strandline_broker.log.identity import Identity, load
from strandline_broker.seams.randomness import new_id, new_uuid

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable

    from strandline_broker.cluster.store import ClusterStore
    from strandline_broker.cluster.view import ClusterView
    from strandline_broker.log.manager import LogManager
    from strandline_broker.seams.disk import Disk
    from strandline_broker.server.config import BrokerConfig

logger = logging.getLogger(__name__)

STATE_FILE = "cluster-state.json"
CLEAN_STOP_FILE = "clean-stop.json"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_RETRY_S = 0.05


class Volume:
    """An opened volume. `resumable_incarnation` is the last one if it ended in a clean stop with this generation."""

    __slots__ = ("_disk", "identity", "incarnation", "resumable_incarnation")

    def __init__(self, disk: Disk, identity: Identity, incarnation: str, resumable: str | None) -> None:
        self._disk = disk
        self.identity = identity
        self.incarnation = incarnation
        self.resumable_incarnation = resumable

    @classmethod
    async def open(
        cls,
        disk: Disk,
        config: BrokerConfig,
        rng: random.Random,
        store: ClusterStore,
        logs: LogManager,
        blocking: Callable[[Callable[[], object]], Awaitable[object]],
        boot_id: str,
    ) -> Volume:
        """Check identity, recover the logs, decide the log generation. Raises IdentityError, DiskError."""
        known = load(disk)
        cluster_id = config.cluster_id or (known.cluster_id if known is not None else "")
        if not cluster_id:
            cluster_id = await _cluster_id(store, config.cluster_name)
        identity, _ = Identity.open(
            disk, cluster_id=cluster_id, broker_id=config.broker_id, rng=rng, boot_id=boot_id
        )
        resumable = _take_clean_stop(disk, identity.generation)
        await blocking(logs.open)
        before = identity.generation
        identity = identity.after_start(
            rng,
            boot_id=boot_id,
            clean=logs.clean_start,
            lost_synced=bool(logs.lost_synced),
            replicated=config.flush == "Replicated",
        )
        if identity.generation != before:
            logger.warning(
                "this volume may have lost acknowledged records: log generation %d", identity.generation
            )
        identity.save(disk)
        if identity.generation != before or not logs.clean_start:
            resumable = None
        return cls(disk, identity, new_uuid(rng).hex[:12], resumable)

    def save_view(self, image: bytes) -> None:
        """Keep the cluster state for a start without the store. Raises DiskError."""
        self._disk.write_atomic(STATE_FILE, image)

    def load_view(self, view: ClusterView) -> bool:
        """Fill the view with the last known cluster state; return whether there was one. What cannot be read is none."""
        try:
            view.from_bytes(self._disk.read_bytes(STATE_FILE))
        except FileNotFoundError:
            return False
        except MALFORMED as error:
            logger.warning("%s is not used: %r", STATE_FILE, error)
            return False
        return True

    def renew_generation(self, rng: random.Random) -> None:
        """Give this volume another log generation, for its next start: this life keeps its own. Raises DiskError."""
        renewed = replace(self.identity, generation=new_id(rng))
        renewed.save(self._disk)
        logger.warning("this volume lost acknowledged records: log generation %d", renewed.generation)

    def mark_clean_stop(self) -> None:
        """Record that this incarnation ended in a clean stop, so that the next one may resume its epochs."""
        mark = {"incarnation": self.incarnation, "generation": self.identity.generation}
        self._disk.write_atomic(CLEAN_STOP_FILE, orjson.dumps(mark))


def write_incarnation(path: str, incarnation: str) -> None:
    """Write which life of the broker runs, as `incarnation=<id>`, for a supervisor that sees it end.

    Kubernetes shows the file as the container's termination message: an end is then known to be this life's, though the
    next one may already hold the Lease. A file that cannot be written costs failover time, nothing else.
    """
    try:
        Path(path).write_text(f"incarnation={incarnation}\n", encoding="ascii")
    except OSError as error:
        logger.warning("%s cannot be written: %s", path, error.strerror)


def _take_clean_stop(disk: Disk, generation: int) -> str | None:
    """Return the incarnation that ended cleanly, and remove the mark for good before anything is written."""
    try:
        mark = orjson.loads(disk.read_bytes(CLEAN_STOP_FILE))
    except FileNotFoundError:
        return None
    except ValueError:
        mark = {}
    disk.remove(CLEAN_STOP_FILE)
    disk.sync_dir("")
    if isinstance(mark, dict) and mark.get("generation") == generation:
        return str(mark["incarnation"])
    return None


async def _cluster_id(store: ClusterStore, cluster: str) -> str:
    """Return the id that the cluster has for good, whatever became of its Cluster object. Waits until there is one."""
    waited = False
    while True:
        try:
            state = ClusterState.from_object(await store.get(CLUSTER_STATE, cluster_state_name(cluster)))
            if state.cluster_id:
                return state.cluster_id
            reason = "the operator has not given it one"
        except (NotFound, Unavailable) as error:
            reason = str(error)
        if not waited:
            logger.info("waiting for the id of Cluster %s: %s", cluster, reason)
            waited = True
        await asyncio.sleep(_RETRY_S)


def read_boot_id() -> str:
    """Return an id of this boot of the kernel, empty where there is none."""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""
