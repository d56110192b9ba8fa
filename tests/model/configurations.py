"""The worlds that `make model` exhausts, and the small ones of every test run."""

from __future__ import annotations

from itertools import product

from tests.model.settings import Bounds

# Both flush modes, and a minimum of one and of two, in every world.
_MODES = tuple(product((False, True), (1, 2)))

SMALL = tuple(
    Bounds(log_length=1, crashes=1, late_views=False, min_isr=min_isr, flush_replicated=flush_replicated)
    for flush_replicated, min_isr in _MODES
)

TWO_BROKERS = tuple(
    Bounds(
        epochs=3,
        log_length=2,
        crashes=2,
        clean_restarts=1,
        late_views=False,
        late_fetches=False,
        min_isr=min_isr,
        flush_replicated=flush_replicated,
    )
    for flush_replicated, min_isr in _MODES
)

# Less happens, but everything that is late comes later: fetches, views, a second ISR change under way.
TWO_BROKERS_LATE = tuple(
    Bounds(
        epochs=3,
        log_length=1,
        crashes=2,
        writes_in_flight=2,
        min_isr=min_isr,
        flush_replicated=flush_replicated,
    )
    for flush_replicated, min_isr in _MODES
)

THREE_BROKERS = tuple(
    Bounds(
        brokers=3,
        epochs=2,
        log_length=1,
        crashes=1,
        late_views=False,
        late_fetches=False,
        min_isr=min_isr,
        flush_replicated=flush_replicated,
    )
    for flush_replicated, min_isr in _MODES
)

ALL = (*TWO_BROKERS, *TWO_BROKERS_LATE, *THREE_BROKERS)
