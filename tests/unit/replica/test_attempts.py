"""ISR changes of unknown outcome on the disk."""

from __future__ import annotations

from uuid import UUID

import pytest
from tests.unit.replica.support import state_of

from strandline_broker.replica.attempts import decode_attempts, encode_attempts

TOPIC = UUID(int=7)


def test_what_was_written_is_read() -> None:
    one, two = state_of((0, 1), (1, 2), partition_epoch=3), state_of((0, 1), (2, 9), partition_epoch=3)
    image = encode_attempts([((TOPIC, 4), one), ((TOPIC, 4), two)])
    assert decode_attempts(image) == {(TOPIC, 4): [one, two]}
    assert decode_attempts(encode_attempts(())) == {}


@pytest.mark.parametrize(
    "image", [b"", b"{", b"[]", b'{"version": 2, "attempts": []}', b'{"version": 1, "attempts": [{}]}']
)
def test_damage_is_told_apart_from_nothing(image: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode_attempts(image)
