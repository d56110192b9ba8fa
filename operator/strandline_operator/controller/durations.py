"""Durations as users write them in manifests: `24h`, `90m`, `1h30m`, `7d`."""

from __future__ import annotations

import re

_PART = re.compile(r"([0-9]{1,6})(ms|s|m|h|d)")
_UNIT_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def parse_duration_ms(text: str) -> int:
    """Return the milliseconds that a duration stands for. Raises ValueError."""
    total = 0
    position = 0
    while match := _PART.match(text, position):
        total += int(match[1]) * _UNIT_MS[match[2]]
        position = match.end()
    if not text or position != len(text):
        raise ValueError(f'"{text}" is not a duration; write for example 24h, 90m or 7d')
    return total
