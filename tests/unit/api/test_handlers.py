from __future__ import annotations

import subprocess
import sys

import pytest

from strandline_broker.api import handlers
from strandline_broker.wire.api_keys import ApiKey


def test_every_cold_api_has_a_handler() -> None:
    for key in handlers.COLD:
        assert callable(handlers.cold_handler(key))
    with pytest.raises(KeyError):
        handlers.cold_handler(ApiKey.PRODUCE)


def test_what_has_a_handler_is_advertised_and_nothing_else() -> None:
    registry = handlers.build_registry()
    assert {entry.key for entry in registry.ranges} == set(handlers.IMPLEMENTED)
    assert len(set(handlers.IMPLEMENTED)) == len(handlers.IMPLEMENTED)


def test_the_table_is_cheap_to_import() -> None:
    code = (
        "import sys; import strandline_broker.api.handlers, strandline_broker.api.api_versions, "
        "strandline_broker.api.metadata; print(*(m for m in ('kio', 'aiohttp', 'yaml') if m in sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == ""
