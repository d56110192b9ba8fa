"""The broker settings that group coordination obeys, with Kafka's names and defaults.

Source: Apache Kafka 4.2, `GroupCoordinatorConfig`. Built by the coordinator layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_MS_PER_MINUTE = 60_000


@dataclass(frozen=True, slots=True)
class GroupConfig:
    """Settings of the classic group protocol and of offset storage."""

    min_session_timeout_ms: int = 6_000
    max_session_timeout_ms: int = 1_800_000
    initial_rebalance_delay_ms: int = 3_000
    max_size: int = 2**31 - 1
    #: How long a JoinGroup of a member without an id of its own is kept waiting (Kafka: group.new.member.join.timeout.ms).
    new_member_join_timeout_ms: int = 300_000
    offset_metadata_max_bytes: int = 4_096
    offsets_retention_minutes: int = 10_080
    offsets_retention_check_interval_ms: int = 600_000

    @property
    def offsets_retention_ms(self) -> int:
        """How long offsets outlive their last use."""
        return self.offsets_retention_minutes * _MS_PER_MINUTE

    @classmethod
    def from_broker_configs(cls, configs: Mapping[str, str]) -> GroupConfig:
        """Take what is set in `configs` (Kafka's names, see `_NAMES`), defaults for the rest.

        Raises ValueError when a value is no integer.
        """
        return cls(**{field: int(configs[name]) for name, field in _NAMES.items() if name in configs})


_NAMES = {
    "group.min.session.timeout.ms": "min_session_timeout_ms",
    "group.max.session.timeout.ms": "max_session_timeout_ms",
    "group.initial.rebalance.delay.ms": "initial_rebalance_delay_ms",
    "group.max.size": "max_size",
    "group.new.member.join.timeout.ms": "new_member_join_timeout_ms",
    "offset.metadata.max.bytes": "offset_metadata_max_bytes",
    "offsets.retention.minutes": "offsets_retention_minutes",
    "offsets.retention.check.interval.ms": "offsets_retention_check_interval_ms",
}
