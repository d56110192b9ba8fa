from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strandline_broker.security.saslprep import NotPreparableError, saslprep


@pytest.mark.parametrize(
    ("text", "prepared"),
    [
        # RFC 4013, section 3
        ("I\u00adX", "IX"),
        ("user", "user"),
        ("USER", "USER"),
        ("\u00aa", "a"),
        ("\u2168", "IX"),
        # spaces, canonical composition
        ("a\u00a0b", "a b"),
        ("pa ss", "pa ss"),
        ("e\u0301", "\u00e9"),
        ("\u0627\u0628", "\u0627\u0628"),
    ],
)
def test_examples(text: str, prepared: str) -> None:
    assert saslprep(text) == prepared


@pytest.mark.parametrize(
    "text",
    ["\u0007", "\u0627\u0031", "", "\u00ad", "\x00", "\x7f", "a\nb", "\ue000", "\ufffe", "\u2028", "\U000e0001", "\u0221",
     "\u0627a\u0628", "\ud800"],
)  # fmt: skip
def test_refusals_quote_nothing(text: str) -> None:
    with pytest.raises(NotPreparableError) as refused:
        saslprep(text)
    assert not text or text not in str(refused.value)


@given(st.text(max_size=20))
def test_preparing_again_changes_nothing(text: str) -> None:
    try:
        prepared = saslprep(text)
    except NotPreparableError:
        return
    try:
        assert saslprep(prepared) == prepared
    except NotPreparableError:
        # NFKC of some characters brings forth ones that the second mapping removes or refuses.
        assert not prepared.isascii()
