from __future__ import annotations

import pytest
from kio.index import load_request_schema, load_response_schema

from strandline_broker.errors import ErrorCode
from strandline_broker.wire.api_keys import ApiKey
from strandline_broker.wire.errors import UnsupportedVersion
from strandline_broker.wire.registry import (
    KAFKA_RANGES,
    ApiRange,
    Registry,
    first_flexible_version,
    request_header_version,
    response_header_version,
)


def test_the_table_has_every_key_once_in_order() -> None:
    assert [entry.key for entry in KAFKA_RANGES] == list(ApiKey)


@pytest.mark.parametrize("entry", KAFKA_RANGES, ids=lambda entry: entry.key.name)
def test_header_versions_agree_with_kio(entry: ApiRange) -> None:
    key = entry.key
    for version in range(entry.min_version, entry.max_version + 1):
        request, response = load_request_schema(key, version), load_response_schema(key, version)
        assert request_header_version(key, version) == request.__header_schema__.__version__
        assert response_header_version(key, version) == response.__header_schema__.__version__
        assert (version >= first_flexible_version(key)) == request.__flexible__


@pytest.mark.parametrize(
    ("key", "low", "high"),
    [
        (ApiKey.PRODUCE, 3, 13),
        (ApiKey.FETCH, 4, 18),
        (ApiKey.LIST_OFFSETS, 1, 11),
        (ApiKey.METADATA, 0, 13),
        (ApiKey.OFFSET_COMMIT, 2, 10),
        (ApiKey.OFFSET_FETCH, 1, 10),
        (ApiKey.JOIN_GROUP, 0, 9),
        (ApiKey.INIT_PRODUCER_ID, 0, 5),
        (ApiKey.OFFSET_FOR_LEADER_EPOCH, 2, 4),
        (ApiKey.CREATE_TOPICS, 2, 7),
        (ApiKey.DESCRIBE_LOG_DIRS, 1, 4),
        (ApiKey.CONSUMER_GROUP_HEARTBEAT, 0, 1),
        (ApiKey.SHARE_FETCH, 1, 2),
    ],
)
def test_ranges_that_clients_depend_on(key: ApiKey, low: int, high: int) -> None:
    entry = Registry(ApiKey).range_of(key)
    assert entry is not None
    assert (entry.min_version, entry.max_version) == (low, high)


def test_only_produce_advertises_more_than_it_accepts() -> None:
    differing = [entry for entry in KAFKA_RANGES if entry.advertised_min != entry.min_version]
    assert [(entry.key, entry.advertised_min) for entry in differing] == [(ApiKey.PRODUCE, 0)]
    registry = Registry(ApiKey)
    assert not any(registry.accepts(ApiKey.PRODUCE, version) for version in range(3))


def test_what_is_accepted_is_what_is_advertised() -> None:
    registry = Registry([ApiKey.FETCH, ApiKey.METADATA], limits={ApiKey.FETCH: 12})
    accepted = {(k, v) for k in range(-2, 120) for v in range(-2, 40) if registry.accepts(k, v)}
    assert accepted == {(e.key, v) for e in registry.ranges for v in range(e.min_version, e.max_version + 1)}
    assert (ApiKey.FETCH, 12) in accepted
    assert (ApiKey.FETCH, 13) not in accepted
    assert ApiKey.FETCH in registry
    assert ApiKey.PRODUCE not in registry
    assert registry.range_of(ApiKey.PRODUCE) is None


def test_check_raises_what_the_client_is_told() -> None:
    registry = Registry([ApiKey.FETCH])
    registry.check(ApiKey.FETCH, 4)
    for key, version in [(ApiKey.FETCH, 3), (ApiKey.FETCH, 19), (ApiKey.METADATA, 0), (-1, 0)]:
        with pytest.raises(UnsupportedVersion) as caught:
            registry.check(key, version)
        assert caught.value.code == ErrorCode.UNSUPPORTED_VERSION
        assert (caught.value.api_key, caught.value.api_version) == (key, version)


@pytest.mark.parametrize("limits", [{ApiKey.FETCH: 19}, {ApiKey.FETCH: 3}, {ApiKey.METADATA: 1}])
def test_limits_that_make_no_sense_are_refused(limits: dict[ApiKey, int]) -> None:
    with pytest.raises(ValueError, match=r"version|limits"):
        Registry([ApiKey.FETCH], limits)


def test_display_names() -> None:
    assert ApiKey.OFFSET_FOR_LEADER_EPOCH.display_name == "OffsetForLeaderEpoch"
