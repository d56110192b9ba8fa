"""All targets, by name."""

from __future__ import annotations

from tests.fuzz.cluster_targets import CLUSTER_TARGETS
from tests.fuzz.log_targets import LOG_TARGETS
from tests.fuzz.net_targets import NET_TARGETS
from tests.fuzz.segment_targets import SEGMENT_TARGETS
from tests.fuzz.tiered_targets import TIERED_TARGETS
from tests.fuzz.wire_targets import WIRE_TARGETS

TARGETS = (*WIRE_TARGETS, *NET_TARGETS, *CLUSTER_TARGETS, *LOG_TARGETS, *TIERED_TARGETS, *SEGMENT_TARGETS)
