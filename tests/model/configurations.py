"""The worlds that `make model` exhausts, and the small ones of every test run."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

from tests.model.settings import Bounds


def _in_all_modes(bounds: Bounds) -> tuple[Bounds, ...]:
    """Return a world in both flush modes, with a minimum of one and of two."""
    return tuple(
        replace(bounds, flush_replicated=flush_replicated, min_isr=min_isr)
        for flush_replicated, min_isr in product((False, True), (1, 2))
    )


_PUNCTUAL = Bounds(late_fetches=False, late_views=False)

SMALL = _in_all_modes(replace(_PUNCTUAL, log_length=1, failed_logs=True, follower_watermarks=True))

TWO_BROKERS = _in_all_modes(replace(_PUNCTUAL, log_length=2, crashes=2))
# Shorter logs, but everything that can be late is, and followers serve consumers.
LATE = _in_all_modes(Bounds(log_length=1, crashes=2, failed_logs=True, follower_watermarks=True))
# Leaders that stop cleanly and resume, with two changes of theirs under way.
RESUMED = _in_all_modes(
    replace(_PUNCTUAL, log_length=1, clean_restarts=1, writes_in_flight=2, failed_logs=True)
)
THREE_BROKERS = _in_all_modes(replace(_PUNCTUAL, brokers=3, epochs=2, log_length=1))

ALL = (*TWO_BROKERS, *LATE, *RESUMED, *THREE_BROKERS)
