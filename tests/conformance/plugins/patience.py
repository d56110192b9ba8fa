"""Gives tests of what is known to be missing, and planned, less time: their clients would wait to the last second.

CONFORMANCE_IMPATIENT names a file with patterns of such tests, one id per line as in the findings.
"""

from __future__ import annotations

import os
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

_TIMEOUT_S = 8  # of the test itself: it may be the one that starts the cluster


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    patterns = Path(os.environ["CONFORMANCE_IMPATIENT"]).read_text().split()
    for item in items:
        names, _, function = item.nodeid.rpartition("::")
        test = f"{names.replace('.py', '').replace('::', '.').replace('/', '.')}::{function}"
        if any(fnmatchcase(test, pattern.replace("[", "[[]")) for pattern in patterns):
            item.add_marker(pytest.mark.timeout(_TIMEOUT_S, method="signal", func_only=True), append=False)
