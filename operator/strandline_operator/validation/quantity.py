"""Kubernetes quantities (`100Gi`, `1.5T`, `250m`) as exact numbers.

Source: k8s.io/apimachinery/pkg/api/resource.Quantity, of which the CEL library `quantity()` is a view.
"""

from __future__ import annotations

import re
from fractions import Fraction

_QUANTITY = re.compile(r"([+-]?)(\d+(?:\.\d*)?|\.\d+)(?:([eE][+-]?\d{1,3})|([numkMGTPE]|[KMGTPE]i))?")
_SUFFIXES = {
    "n": Fraction(1, 10**9), "u": Fraction(1, 10**6), "m": Fraction(1, 1000), "k": Fraction(10**3),
    "M": Fraction(10**6), "G": Fraction(10**9), "T": Fraction(10**12), "P": Fraction(10**15),
    "E": Fraction(10**18), "Ki": Fraction(2**10), "Mi": Fraction(2**20), "Gi": Fraction(2**30),
    "Ti": Fraction(2**40), "Pi": Fraction(2**50), "Ei": Fraction(2**60),
}  # fmt: skip


def parse_quantity(text: str) -> Fraction:
    """Return the number that a quantity stands for. Raises ValueError."""
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise ValueError(f'"{text}" is not a quantity; write for example 10Gi or 1.5T')
    sign, digits, exponent, suffix = match.groups()
    number = Fraction(digits) * (_SUFFIXES[suffix] if suffix else 1)
    if exponent:
        number *= Fraction(10) ** int(exponent[1:])
    return -number if sign == "-" else number
