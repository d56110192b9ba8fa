"""Who this volume belongs to: `meta.json`, and when its log generation changes (design invariant 8, section 3.2).

Who uses it: the broker at start, before it touches anything else on the volume. A volume of another cluster
or broker is refused; an empty volume gets a new volume id and a new generation, whoever asks.

The **log generation** names one history of this volume. It changes when acknowledged bytes may be gone: a new
or wiped volume, a log that ends below a recorded synced point, and with `flush: Replicated` any end that was
neither clean nor provably within the same kernel boot.

Format: one JSON object, `version` 1, replaced atomically.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from strandline_broker.log.checkpoints import HIGH_WATERMARKS, LOG_STARTS, RECOVERY_POINTS
from strandline_broker.log.names import parse_log_directory
from strandline_broker.seams.randomness import new_id, new_uuid

if TYPE_CHECKING:
    import random

    from strandline_broker.seams.disk import Disk

logger = logging.getLogger(__name__)

META_FILE = "meta.json"
VERSION = 1


class IdentityError(Exception):
    """The volume is not this broker's, or it cannot be told whose it is. The broker must not start."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What `meta.json` says.

    `generation` is in [1, 2**53); `boot_id` is the kernel boot of the last start, "" if unknown.
    """

    cluster_id: str
    broker_id: int
    volume_id: str
    generation: int
    boot_id: str = ""

    @classmethod
    def open(
        cls, disk: Disk, *, cluster_id: str, broker_id: int, rng: random.Random, boot_id: str = ""
    ) -> tuple[Identity, bool]:
        """Return (identity, whether it is new), writing `meta.json` on an empty volume.

        The boot id of the result is the recorded one, of the *last* start: compare it, then `save` the
        current one. Raises IdentityError, DiskError.
        """
        identity = load(disk)
        if identity is None:
            held = _data_without_identity(disk)
            if held:
                raise IdentityError(
                    f"the volume holds data ({held}) but no {META_FILE}: whose it is cannot be told"
                )
            identity = cls(cluster_id, broker_id, str(new_uuid(rng)), new_id(rng), boot_id)
            identity.save(disk)
            logger.info(
                "new volume %s of broker %d, generation %d",
                identity.volume_id,
                broker_id,
                identity.generation,
            )
            return identity, True
        if identity.cluster_id != cluster_id or identity.broker_id != broker_id:
            raise IdentityError(
                f"the volume belongs to broker {identity.broker_id} of cluster {identity.cluster_id}, "
                f"not to broker {broker_id} of cluster {cluster_id}"
            )
        return identity, False

    def save(self, disk: Disk) -> None:
        """Write `meta.json` durably. Raises DiskError."""
        disk.write_atomic(META_FILE, json.dumps({"version": VERSION, **asdict(self)}, indent=1).encode())

    def after_start(
        self, rng: random.Random, *, boot_id: str, clean: bool, lost_synced: bool, replicated: bool
    ) -> Identity:
        """Return the identity for this start, with a new generation if acknowledged bytes may be gone.

        `clean`: the last stop was clean. `lost_synced`: a log was recovered below a recorded synced point.
        `replicated`: `flush: Replicated`. The caller saves the result before it takes part in anything.
        """
        same_boot = bool(boot_id) and boot_id == self.boot_id
        renewed = replace(self, boot_id=boot_id)
        if lost_synced or (replicated and not clean and not same_boot):
            return replace(renewed, generation=new_id(rng))
        return renewed


def load(disk: Disk) -> Identity | None:
    """Return what `meta.json` says, None if there is none. Raises IdentityError if it cannot be read."""
    try:
        data = json.loads(disk.read_bytes(META_FILE))
        if data["version"] != VERSION:
            raise IdentityError(f"{META_FILE} has version {data['version']}, this broker knows {VERSION}")
        return Identity(
            str(data["cluster_id"]),
            int(data["broker_id"]),
            str(data["volume_id"]),
            int(data["generation"]),
            str(data.get("boot_id", "")),
        )
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise IdentityError(f"{META_FILE} cannot be read: {error}") from error


def _data_without_identity(disk: Disk) -> str:
    for name in disk.listdir(""):
        if name in (RECOVERY_POINTS, LOG_STARTS, HIGH_WATERMARKS) or parse_log_directory(name) is not None:
            return name
    return ""
