"""Log lines that a stranger can cause must not fill the disk: a token bucket per kind of message."""

from __future__ import annotations

import logging
from collections.abc import Callable


class RateLimitedLog:
    """Lets `burst` lines of each kind through, then `lines_per_s`; the next line says how many were left out.

    A kind is a constant of the program, never text from outside, so their number is bounded.
    """

    def __init__(
        self,
        logger: logging.Logger,
        now: Callable[[], float],
        *,
        burst: int = 10,
        lines_per_s: float = 0.2,
    ) -> None:
        self._logger = logger
        self._now = now
        self._burst = burst
        self._lines_per_s = lines_per_s
        self._buckets: dict[str, tuple[float, float, int]] = {}

    def log(self, level: int, kind: str, message: str, *, error: BaseException | None = None) -> None:
        """Log `message`, with the traceback of `error` if given, unless lines of this kind came too fast."""
        if not self._logger.isEnabledFor(level):
            return
        now = self._now()
        tokens, since, left_out = self._buckets.get(kind, (float(self._burst), now, 0))
        tokens = min(float(self._burst), tokens + (now - since) * self._lines_per_s)
        if tokens < 1:
            self._buckets[kind] = (tokens, now, left_out + 1)
            return
        self._buckets[kind] = (tokens - 1, now, 0)
        if left_out:
            message = f"{message} ({left_out} more like this were not logged)"
        self._logger.log(level, "%s", message, exc_info=error)
