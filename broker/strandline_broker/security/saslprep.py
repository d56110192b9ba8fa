"""SASLprep: names and passwords that look the same are the same.

Used by `security.users`, `security.plain` and `security.scram`. Unassigned code points are refused, as RFC 4013
demands of stored strings; names that clients send are compared with stored ones, so the same rule serves both.

Source: RFC 4013 (SASLprep), RFC 3454 (stringprep).
"""

from __future__ import annotations

import stringprep
import unicodedata
from typing import Final

_PROHIBITED: Final = (
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
    stringprep.in_table_a1,
)


class NotPreparableError(ValueError):
    """The text holds characters that names and passwords must not hold. The message never quotes it."""


def saslprep(text: str) -> str:
    """Return the prepared form of `text`. Raises NotPreparableError; an empty result is one, too."""
    if text.isascii() and text.isprintable():
        prepared = text
    else:
        mapped = "".join(
            " " if stringprep.in_table_c12(char) else char
            for char in text
            if not stringprep.in_table_b1(char)
        )
        prepared = unicodedata.normalize("NFKC", mapped)
        if any(prohibited(char) for char in prepared for prohibited in _PROHIBITED):
            raise NotPreparableError("a character that is not allowed (RFC 4013)")
        _check_directions(prepared)
    if not prepared:
        raise NotPreparableError("nothing is left of it (RFC 4013)")
    return prepared


def _check_directions(text: str) -> None:
    """Refuse text that mixes directions of writing (RFC 3454, section 6)."""
    if not any(map(stringprep.in_table_d1, text)):
        return
    if any(map(stringprep.in_table_d2, text)):
        raise NotPreparableError("text from left to right within text from right to left (RFC 3454)")
    if not (stringprep.in_table_d1(text[0]) and stringprep.in_table_d1(text[-1])):
        raise NotPreparableError("text from right to left must begin and end so (RFC 3454)")
