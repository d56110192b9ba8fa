"""A periodic callback on the event loop that survives its own exceptions. Used by `net.server`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

_log = logging.getLogger(__name__)


class Ticker:
    """Calls `callback` every `interval_s` seconds until `stop`."""

    __slots__ = ("_callback", "_interval_s", "_loop", "_timer")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, interval_s: float, callback: Callable[[], object]
    ) -> None:
        self._loop = loop
        self._interval_s = interval_s
        self._callback = callback
        self._timer: asyncio.TimerHandle | None = loop.call_later(interval_s, self._tick)

    def _tick(self) -> None:
        self._timer = self._loop.call_later(self._interval_s, self._tick)
        try:
            self._callback()
        except Exception:  # noqa: BLE001  # logged; a periodic check must not end silently
            _log.exception("a periodic check failed; it goes on")

    def stop(self) -> None:
        """End; idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
