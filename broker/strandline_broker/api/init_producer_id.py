"""InitProducerId (key 22), versions 0-5.

Differences from Kafka: only idempotent producers. A transactional id is refused with UNSUPPORTED_VERSION,
because the other transaction APIs are not advertised; clients find that out first, when they look for the
coordinator.

Version notes: v3 sends the old producer id and epoch (KIP-360): both or neither. As in Kafka, an idempotent
producer gets a new id with epoch 0 in any case: it bumps its epoch by itself. v4 and v5 concern transactions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from strandline_broker.api.context import BrokerApi
from strandline_broker.api.request import Request
from strandline_broker.errors import ErrorCode, KafkaError
from strandline_broker.wire.api_keys import ApiKey

KEY = ApiKey.INIT_PRODUCER_ID

_NONE = -1


async def handle(broker: BrokerApi, request: Request) -> Mapping[str, Any]:
    """Hand out a producer id."""
    try:
        _check(request.body)
        producer_id = await broker.allocate_producer_id()
    except KafkaError as refusal:
        return {"error_code": refusal.code, "producer_id": _NONE, "producer_epoch": _NONE}
    return {"error_code": ErrorCode.NONE, "producer_id": producer_id, "producer_epoch": 0}


def _check(body: Any) -> None:
    old_id, old_epoch = getattr(body, "producer_id", _NONE), getattr(body, "producer_epoch", _NONE)
    if (old_id == _NONE) != (old_epoch == _NONE):
        raise KafkaError(ErrorCode.INVALID_REQUEST, "producer id and epoch come together or not at all")
    if body.transactional_id is None:
        return
    if not body.transactional_id:
        raise KafkaError(ErrorCode.INVALID_REQUEST, "the transactional id is empty")
    raise KafkaError(ErrorCode.UNSUPPORTED_VERSION, "transactions are not supported yet")
