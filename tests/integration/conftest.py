"""What foreign clients leave behind is collected where it was left, not in whichever test comes later."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _collect_leftovers() -> Iterator[None]:
    yield
    # kafka-python does not close its wake-up sockets when it cannot log in.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
