"""Every target with its seeds, with damaged seeds and with noise; `tests.fuzz.run` searches much further."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.fuzz.target import Target
from tests.fuzz.targets import TARGETS

BY_NAME = pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)


@BY_NAME
def test_seeds_are_accepted(target: Target) -> None:
    assert target.seeds
    for seed in target.seeds:
        target.decode(seed)


def _damaged(seed: bytes) -> st.SearchStrategy[bytes]:
    """Overwrite, cut out, repeat and insert pieces of a valid input."""

    def apply(edits: list[tuple[int, int, bytes]]) -> bytes:
        data = bytearray(seed)
        for position, length, piece in edits:
            start = position % (len(data) + 1)
            data[start : start + length] = piece
        return bytes(data)

    piece = st.one_of(
        st.binary(max_size=4),
        st.sampled_from(
            (
                b"\xff" * 4,
                b"\x7f\xff\xff\xff",
                b"\x80\0\0\0",
                b"\0" * 8,
                b"\xff\xff\xff\xff\x0f",
                b"\x80" * 12,
            )
        ),
    )
    edit = st.tuples(st.integers(0, len(seed)), st.integers(0, 8), piece)
    return st.lists(edit, min_size=1, max_size=4).map(apply)


@BY_NAME
def test_damaged_and_random_input_is_refused_as_documented(target: Target) -> None:
    inputs = st.one_of(st.binary(max_size=200), st.sampled_from(target.seeds).flatmap(_damaged))

    @settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(inputs)
    def attempt(data: bytes) -> None:
        target.run(data)

    attempt()
