"""Which replicas clients should take for dead."""

from __future__ import annotations

import pytest
from tests.unit.api.support import led

from strandline_broker.api.support.brokers import offline_replicas


@pytest.mark.parametrize(
    ("leader", "isr", "reachable", "silent", "offline"),
    [
        (0, (0, 1, 2), {0, 1, 2}, set(), []),
        (0, (0, 1, 2), {0, 1}, set(), [2]),
        (0, (0, 1), {0, 1, 2}, {2}, [2]),
        (0, (0, 1, 2), {0, 1, 2}, {0, 1, 2}, []),
        (-1, (0,), {0, 1, 2}, {0}, [0]),
        (-1, (0,), {0, 1, 2}, set(), []),
    ],
)
def test_offline_replicas(
    leader: int, isr: tuple[int, ...], reachable: set[int], silent: set[int], offline: list[int]
) -> None:
    assert offline_replicas(led(0, 1, 2, leader=leader, isr=isr), reachable, silent) == offline
