"""The one table of API versions: what is advertised in ApiVersions and what is accepted cannot drift apart.

Source: the message schemas of Apache Kafka 4.2 (`clients/src/main/resources/common/message`). A minimum is
never raised and a single version is never advertised alone: client libraries derive features from the
ranges. The table says what the protocol allows; a `Registry` narrows it to the APIs that this broker really
serves. The dispatcher and ApiVersions read the same Registry.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from strandline_broker.wire.api_keys import ApiKey
from strandline_broker.wire.errors import UnsupportedVersion

NEVER_FLEXIBLE: Final = 1 << 15
"""First flexible version of an API that has none: above every int16."""


class ApiRange(NamedTuple):
    """The versions of one API, both ends inclusive."""

    key: ApiKey
    min_version: int
    """Lowest version that is accepted."""
    max_version: int
    first_flexible_version: int
    """From here on compact types and tagged fields are used (KIP-482)."""
    advertised_min_version: int = -1
    """Lowest version shown in ApiVersions where it differs from the accepted one, else -1.

    Only Produce differs: older librdkafka looks for Produce v0 in the range before it enables gzip, snappy
    or lz4, and would silently send uncompressed data otherwise (KAFKA-18659). Versions 0 to 2 themselves
    are refused.
    """

    @property
    def advertised_min(self) -> int:
        """Lowest version to show in ApiVersions."""
        return self.min_version if self.advertised_min_version < 0 else self.advertised_min_version


# Differences from the schemas, on purpose: InitProducerId 6 is marked unstable there and stays
# unadvertised; of ShareFetch and their kin version 0 was an early-access format that 4.1 dropped.
KAFKA_RANGES: Final[tuple[ApiRange, ...]] = (
    ApiRange(ApiKey.PRODUCE, 3, 13, 9, advertised_min_version=0),
    ApiRange(ApiKey.FETCH, 4, 18, 12),
    ApiRange(ApiKey.LIST_OFFSETS, 1, 11, 6),
    ApiRange(ApiKey.METADATA, 0, 13, 9),
    ApiRange(ApiKey.OFFSET_COMMIT, 2, 10, 8),
    ApiRange(ApiKey.OFFSET_FETCH, 1, 10, 6),
    ApiRange(ApiKey.FIND_COORDINATOR, 0, 6, 3),
    ApiRange(ApiKey.JOIN_GROUP, 0, 9, 6),
    ApiRange(ApiKey.HEARTBEAT, 0, 4, 4),
    ApiRange(ApiKey.LEAVE_GROUP, 0, 5, 4),
    ApiRange(ApiKey.SYNC_GROUP, 0, 5, 4),
    ApiRange(ApiKey.DESCRIBE_GROUPS, 0, 6, 5),
    ApiRange(ApiKey.LIST_GROUPS, 0, 5, 3),
    ApiRange(ApiKey.SASL_HANDSHAKE, 0, 1, NEVER_FLEXIBLE),
    ApiRange(ApiKey.API_VERSIONS, 0, 4, 3),
    ApiRange(ApiKey.CREATE_TOPICS, 2, 7, 5),
    ApiRange(ApiKey.DELETE_TOPICS, 1, 6, 4),
    ApiRange(ApiKey.DELETE_RECORDS, 0, 2, 2),
    ApiRange(ApiKey.INIT_PRODUCER_ID, 0, 5, 2),
    ApiRange(ApiKey.OFFSET_FOR_LEADER_EPOCH, 2, 4, 4),
    ApiRange(ApiKey.ADD_PARTITIONS_TO_TXN, 0, 5, 3),
    ApiRange(ApiKey.ADD_OFFSETS_TO_TXN, 0, 4, 3),
    ApiRange(ApiKey.END_TXN, 0, 5, 3),
    ApiRange(ApiKey.WRITE_TXN_MARKERS, 1, 2, 1),
    ApiRange(ApiKey.TXN_OFFSET_COMMIT, 0, 5, 3),
    ApiRange(ApiKey.DESCRIBE_ACLS, 1, 3, 2),
    ApiRange(ApiKey.CREATE_ACLS, 1, 3, 2),
    ApiRange(ApiKey.DELETE_ACLS, 1, 3, 2),
    ApiRange(ApiKey.DESCRIBE_CONFIGS, 1, 4, 4),
    ApiRange(ApiKey.ALTER_CONFIGS, 0, 2, 2),
    ApiRange(ApiKey.ALTER_REPLICA_LOG_DIRS, 1, 2, 2),
    ApiRange(ApiKey.DESCRIBE_LOG_DIRS, 1, 4, 2),
    ApiRange(ApiKey.SASL_AUTHENTICATE, 0, 2, 2),
    ApiRange(ApiKey.CREATE_PARTITIONS, 0, 3, 2),
    ApiRange(ApiKey.CREATE_DELEGATION_TOKEN, 1, 3, 2),
    ApiRange(ApiKey.RENEW_DELEGATION_TOKEN, 1, 2, 2),
    ApiRange(ApiKey.EXPIRE_DELEGATION_TOKEN, 1, 2, 2),
    ApiRange(ApiKey.DESCRIBE_DELEGATION_TOKEN, 1, 3, 2),
    ApiRange(ApiKey.DELETE_GROUPS, 0, 2, 2),
    ApiRange(ApiKey.ELECT_LEADERS, 0, 2, 2),
    ApiRange(ApiKey.INCREMENTAL_ALTER_CONFIGS, 0, 1, 1),
    ApiRange(ApiKey.ALTER_PARTITION_REASSIGNMENTS, 0, 1, 0),
    ApiRange(ApiKey.LIST_PARTITION_REASSIGNMENTS, 0, 0, 0),
    ApiRange(ApiKey.OFFSET_DELETE, 0, 0, NEVER_FLEXIBLE),
    ApiRange(ApiKey.DESCRIBE_CLIENT_QUOTAS, 0, 1, 1),
    ApiRange(ApiKey.ALTER_CLIENT_QUOTAS, 0, 1, 1),
    ApiRange(ApiKey.DESCRIBE_USER_SCRAM_CREDENTIALS, 0, 0, 0),
    ApiRange(ApiKey.ALTER_USER_SCRAM_CREDENTIALS, 0, 0, 0),
    ApiRange(ApiKey.DESCRIBE_QUORUM, 0, 2, 0),
    ApiRange(ApiKey.UPDATE_FEATURES, 0, 2, 0),
    ApiRange(ApiKey.DESCRIBE_CLUSTER, 0, 2, 0),
    ApiRange(ApiKey.DESCRIBE_PRODUCERS, 0, 0, 0),
    ApiRange(ApiKey.UNREGISTER_BROKER, 0, 0, 0),
    ApiRange(ApiKey.DESCRIBE_TRANSACTIONS, 0, 0, 0),
    ApiRange(ApiKey.LIST_TRANSACTIONS, 0, 2, 0),
    ApiRange(ApiKey.CONSUMER_GROUP_HEARTBEAT, 0, 1, 0),
    ApiRange(ApiKey.CONSUMER_GROUP_DESCRIBE, 0, 1, 0),
    ApiRange(ApiKey.GET_TELEMETRY_SUBSCRIPTIONS, 0, 0, 0),
    ApiRange(ApiKey.PUSH_TELEMETRY, 0, 0, 0),
    ApiRange(ApiKey.LIST_CONFIG_RESOURCES, 0, 1, 0),
    ApiRange(ApiKey.DESCRIBE_TOPIC_PARTITIONS, 0, 0, 0),
    ApiRange(ApiKey.SHARE_GROUP_HEARTBEAT, 1, 1, 0),
    ApiRange(ApiKey.SHARE_GROUP_DESCRIBE, 1, 1, 0),
    ApiRange(ApiKey.SHARE_FETCH, 1, 2, 0),
    ApiRange(ApiKey.SHARE_ACKNOWLEDGE, 1, 2, 0),
    ApiRange(ApiKey.INITIALIZE_SHARE_GROUP_STATE, 0, 0, 0),
    ApiRange(ApiKey.READ_SHARE_GROUP_STATE, 0, 0, 0),
    ApiRange(ApiKey.WRITE_SHARE_GROUP_STATE, 0, 1, 0),
    ApiRange(ApiKey.DELETE_SHARE_GROUP_STATE, 0, 0, 0),
    ApiRange(ApiKey.READ_SHARE_GROUP_STATE_SUMMARY, 0, 1, 0),
    ApiRange(ApiKey.STREAMS_GROUP_HEARTBEAT, 0, 0, 0),
    ApiRange(ApiKey.STREAMS_GROUP_DESCRIBE, 0, 0, 0),
    ApiRange(ApiKey.DESCRIBE_SHARE_GROUP_OFFSETS, 0, 1, 0),
    ApiRange(ApiKey.ALTER_SHARE_GROUP_OFFSETS, 0, 0, 0),
    ApiRange(ApiKey.DELETE_SHARE_GROUP_OFFSETS, 0, 0, 0),
)

BY_KEY: Final[dict[int, ApiRange]] = {int(entry.key): entry for entry in KAFKA_RANGES}

FIRST_FLEXIBLE: Final[dict[int, int]] = {key: entry.first_flexible_version for key, entry in BY_KEY.items()}


def first_flexible_version(api_key: int) -> int:
    """Return the first version of an API that uses compact types and tagged fields.

    An unknown API counts as never flexible: its requests are refused anyway.
    """
    return FIRST_FLEXIBLE.get(api_key, NEVER_FLEXIBLE)


def request_header_version(api_key: int, api_version: int) -> int:
    """Return 2 (with tagged fields) for flexible versions, else 1.

    Valid for versions beyond our maximum, too.
    """
    return 2 if api_version >= first_flexible_version(api_key) else 1


def response_header_version(api_key: int, api_version: int) -> int:
    """Return 1 (with tagged fields) for flexible versions, else 0.

    ApiVersions is always answered with header 0, because a client that does not know the broker's versions
    must be able to read the answer (KIP-511).
    """
    if api_key == ApiKey.API_VERSIONS:
        return 0
    return 1 if api_version >= first_flexible_version(api_key) else 0


class Registry:
    """The APIs that one broker serves.

    `implemented` names them; `limits` may lower the maximum of an API (a version whose meaning is not there
    yet must not be offered). Minimums cannot be changed.
    """

    __slots__ = ("_accepted", "ranges")

    def __init__(self, implemented: Iterable[ApiKey], limits: dict[ApiKey, int] | None = None) -> None:
        limits = limits or {}
        keys = set(implemented)
        unknown = limits.keys() - keys
        if unknown:
            raise ValueError(f"limits for APIs that are not implemented: {sorted(unknown)}")
        ranges = []
        for entry in KAFKA_RANGES:
            if entry.key not in keys:
                continue
            max_version = limits.get(entry.key, entry.max_version)
            if not entry.min_version <= max_version <= entry.max_version:
                raise ValueError(
                    f"{entry.key.display_name}: maximum version {max_version} is outside {entry}"
                )
            ranges.append(entry._replace(max_version=max_version))
        self.ranges: tuple[ApiRange, ...] = tuple(ranges)
        """What ApiVersions shows, in the order of the keys."""
        self._accepted = frozenset(
            (int(entry.key), version)
            for entry in ranges
            for version in range(entry.min_version, entry.max_version + 1)
        )

    def __contains__(self, api_key: int) -> bool:
        return any(entry.key == api_key for entry in self.ranges)

    def accepts(self, api_key: int, api_version: int) -> bool:
        """Say whether a request of this API and version is served.

        One set lookup: it runs for every request.
        """
        return (api_key, api_version) in self._accepted

    def check(self, api_key: int, api_version: int) -> None:
        """Do nothing if a request of this API and version is served.

        Raises UnsupportedVersion: then ApiVersions answers in its version 0, and for every other API the
        connection is closed.
        """
        if (api_key, api_version) not in self._accepted:
            raise UnsupportedVersion(api_key, api_version)

    def range_of(self, api_key: int) -> ApiRange | None:
        """Return the served versions of an API, or None."""
        return next((entry for entry in self.ranges if entry.key == api_key), None)
