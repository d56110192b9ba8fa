from __future__ import annotations

import pytest

from strandline_broker.cluster.replica_assignment import format_assignment, parse_assignment


def test_an_assignment_round_trips() -> None:
    wanted = {10: (2, 0), 0: (1, 2)}
    text = format_assignment(wanted)
    assert text == '{"0":[1,2],"10":[2,0]}'
    assert parse_assignment(text) == wanted
    assert parse_assignment("{}") == {}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"a":[1]}',
        '{"0":1}',
        '{"0":"12"}',
        '{"0":[]}',
        '{"0":[1,1]}',
        '{"0":[-1]}',
        '{"0":["1"]}',
        "{",
    ],
)
def test_what_makes_no_sense_is_refused_with_the_annotations_name(text: str) -> None:
    with pytest.raises(ValueError, match=r"strandline\.io/replica-assignment"):
        parse_assignment(text)
