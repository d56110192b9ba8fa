"""What others know better than this broker: its rack, and the addresses by which clients outside reach it.

In Kubernetes the operator learns both from the pod's node and from Services, and writes them into an annotation that the
pod sees as a file (`placement_file`, ADR 0008): JSON such as

    {"rack": "zone-1", "advertised": {"EXTERNAL": {"host": "203.0.113.7", "port": 31234}}}

Read at start and followed from then on by `server.endpoints`. What the file does not name stays as configured. A file
that is missing, empty or wrong changes nothing.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from strandline_broker.cluster.model import Endpoint

if TYPE_CHECKING:
    from strandline_broker.server.listeners import Listener

logger = logging.getLogger(__name__)

CHECK_INTERVAL_S = 1.0
_WAIT_INTERVAL_S = 0.1
_MAX_FILE_BYTES = 64 * 1024
_MAX_PORT = 65535


@dataclass(frozen=True, slots=True)
class Placement:
    """The content of the file. `rack` None and listeners that are missing mean: as configured."""

    rack: str | None = None
    advertised: Mapping[str, Endpoint] = field(default_factory=dict)

    def advertise(
        self, listeners: Iterable[Listener], bound: Callable[[str], tuple[str, int]]
    ) -> dict[str, Endpoint]:
        """Return what others are told of each listener; `bound` says where it listens."""
        configured = {
            one.name: Endpoint(one.advertised_host, one.advertised_port or bound(one.name)[1])
            for one in listeners
        }
        return {name: self.advertised.get(name, endpoint) for name, endpoint in configured.items()}


def parse_placement(text: str) -> Placement:
    """Return what the file says. Raises ValueError with a text for the log."""
    try:
        document = json.loads(text)
        rack = document.get("rack")
        advertised = {
            str(name).upper(): Endpoint(entry["host"], entry["port"])
            for name, entry in document.get("advertised", {}).items()
        }
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"not a placement: {error!r}") from error
    for host, port in advertised.values():
        if not isinstance(host, str) or not host or not isinstance(port, int) or not 0 < port <= _MAX_PORT:
            raise ValueError(f"not an address: {host!r}, port {port!r}")
    if rack is not None and not isinstance(rack, str):
        raise ValueError(f"not a rack: {rack!r}")
    return Placement(rack or None, advertised)


class PlacementFile:
    """The newest usable content of the file; `current` is empty until there is one."""

    def __init__(
        self, path: str | None, run_blocking: Callable[[Callable[[], object]], Awaitable[object]]
    ) -> None:
        """`run_blocking` runs a function in a thread that may wait for a disk."""
        self._path = Path(path) if path else None
        self._blocking = run_blocking
        self._text = ""
        self.current = Placement()

    async def wait(self, timeout_s: float) -> None:
        """Return once there is a placement, or after the time: an operator that is away must not keep a broker down."""
        for waited in range(1 + round(timeout_s / _WAIT_INTERVAL_S) if self._path is not None else 0):
            if waited:
                await asyncio.sleep(_WAIT_INTERVAL_S)
            if await self.check():
                return
        if self._path is not None and timeout_s > 0:
            logger.warning("%s says nothing about this broker's place; going on without", self._path)

    async def check(self) -> bool:
        """Read the file; return whether there is a new placement."""
        if self._path is None:
            return False
        text = str(await self._blocking(self._read)).strip()
        if text in ("", self._text):
            return False
        self._text = text  # also when it cannot be used: it is logged once
        try:
            self.current = parse_placement(text)
        except ValueError as error:
            logger.error("%s is not used: %s", self._path, error)
            return False
        logger.info("the place of this broker: %s", text)
        return True

    def _read(self) -> str:
        assert self._path is not None
        try:
            with self._path.open("rb") as file:
                return file.read(_MAX_FILE_BYTES).decode(errors="replace")
        except OSError:
            return ""  # not mounted yet, or being replaced: the next look finds it
