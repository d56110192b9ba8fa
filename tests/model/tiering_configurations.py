"""The worlds of tiering that `make model` exhausts, and the small ones of every test run."""

from __future__ import annotations

from dataclasses import replace

from tests.model.tiering_settings import Bounds

# One record, which is appended, acknowledged and tiered, and two changes of the leader.
_APPENDED = Bounds(epochs=3, log_length=1)
# Two records, of which one is tiered already, and one change of the leader.
_TIERED = Bounds(epochs=3, log_length=2, records=2, tiered=1)

SMALL = (
    replace(_APPENDED, epochs=2, crashes=1),
    replace(_TIERED, segment_sizes=(1, 2)),
    replace(_TIERED, late_answers=True),
    replace(_TIERED, lost_volumes=1),
)

ALL = (
    replace(_APPENDED, crashes=1, lost_volumes=1),
    replace(_APPENDED, lost_answers=1),
    replace(_APPENDED, resumptions=1),
    replace(_APPENDED, unclean_elections=1),
    replace(_TIERED, records=1, unclean_elections=1),
    replace(_TIERED, epochs=4),
    replace(_TIERED, epochs=4, raises=1),
    replace(_TIERED, epochs=4, scrubs=1),
    replace(_TIERED, records=1, unclean_elections=1, raises=1),
    replace(_TIERED, raises=1, scrubs=1, late_collection=True),
    replace(_TIERED, lost_answers=1, late_collection=True),
    replace(_TIERED, lost_answers=2, late_answers=True),
    replace(_TIERED, crashes=1, lost_volumes=1, scrubs=1, late_collection=True),
    replace(_TIERED, resumptions=1, raises=1),
    replace(_TIERED, segment_sizes=(2, 1), lost_answers=1, raises=1),
    replace(_TIERED, segment_sizes=(1, 1, 1), scrubs=1),
)
