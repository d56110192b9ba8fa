"""What a fuzz target is, and how it tells a defect from a refusal.

A target's `decode` takes any bytes. The refusals that its decoder documents are caught in `run`; whatever
else escapes, a failed assertion included, is a finding. `seeds` are valid inputs, so that mutation starts
beyond the first length check.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

MAX_INPUT_BYTES = 1 << 13


@dataclass(frozen=True, slots=True)
class Target:
    """A named decoder, the exceptions by which it may refuse, and inputs that it accepts."""

    name: str
    decode: Callable[[bytes], None]
    refusals: tuple[type[Exception], ...]
    seeds: tuple[bytes, ...]

    def run(self, data: bytes) -> None:
        """Decode; return normally if the input was taken or refused as documented."""
        try:
            self.decode(data)
        except self.refusals:
            return


def split(data: bytes, count: int) -> tuple[list[int], bytes]:
    """Take `count` numbers from 0 to 255 off the front; missing ones are 0."""
    head = list(data[:count])
    return head + [0] * (count - len(head)), data[count:]
