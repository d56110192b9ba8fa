"""Randomness as an argument: a `random.Random`, seeded in tests, from the operating system in production."""

from __future__ import annotations

import random
import uuid

# 53 bits survive every JSON reader, JavaScript's and jq's included.
_ID_BITS = 53


def system_random() -> random.Random:
    """Return the operating system's generator."""
    return random.SystemRandom()


def new_uuid(rng: random.Random) -> uuid.UUID:
    """Return a version-4 UUID drawn from `rng`."""
    return uuid.UUID(int=rng.getrandbits(128), version=4)


def new_id(rng: random.Random) -> int:
    """Return a positive integer below 2**53, for log generations and fetch sessions."""
    return rng.randrange(1, 1 << _ID_BITS)
