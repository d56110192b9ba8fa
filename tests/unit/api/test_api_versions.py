from __future__ import annotations

from typing import Any

import pytest
from tests.unit.api.support import FakeConnection, broker, call_frame, run

from strandline_broker.api.api_versions import ApiVersionsHandler
from strandline_broker.errors import ErrorCode
from strandline_broker.wire import cold
from strandline_broker.wire.api_keys import ApiKey
from strandline_broker.wire.header import RequestHeader

JAVA = {"client_software_name": "apache-kafka-java", "client_software_version": "4.2.0"}


@pytest.mark.parametrize("version", range(5))
def test_shows_what_the_registry_accepts(version: int) -> None:
    async def main() -> None:
        async with broker() as fake:
            handler = ApiVersionsHandler(fake)
            connection = FakeConnection()
            for correlation_id in (1, 2):  # the second answer comes from the cache
                answer = call_frame(handler, ApiKey.API_VERSIONS, version, JAVA, connection, correlation_id)
                assert answer.error_code is ErrorCode.NONE
                shown = {row.api_key: (row.min_version, row.max_version) for row in answer.api_keys}
                assert shown == {r.key: (r.advertised_min, r.max_version) for r in fake.registry.ranges}
            assert connection.client_software == (("apache-kafka-java", "4.2.0") if version >= 3 else None)

    run(main())


def test_a_strange_software_name_is_refused() -> None:
    async def main() -> None:
        async with broker() as fake:
            connection = FakeConnection()
            body = {**JAVA, "client_software_name": "-nope-"}
            answer = call_frame(ApiVersionsHandler(fake), ApiKey.API_VERSIONS, 3, body, connection)
            assert answer.error_code is ErrorCode.INVALID_REQUEST
            assert connection.client_software is None

    run(main())


def test_an_unknown_version_is_answered_in_version_0() -> None:
    async def main() -> None:
        async with broker() as fake:
            header = RequestHeader(ApiKey.API_VERSIONS, 99, 5, "tester", 0)
            connection: Any = FakeConnection()
            response = ApiVersionsHandler(fake).handle(connection, header, memoryview(b"\x00"))
            correlation_id, answer = cold.decode_response(ApiKey.API_VERSIONS, 0, memoryview(response)[4:])
            assert (correlation_id, answer.error_code) == (5, ErrorCode.UNSUPPORTED_VERSION)
            assert len(answer.api_keys) == len(fake.registry.ranges)

    run(main())
