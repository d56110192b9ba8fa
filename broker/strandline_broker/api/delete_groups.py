"""DeleteGroups (key 42), versions 0-2 (KIP-229).

Differences from Kafka: none known. Each group is answered for when its records are committed; a group that is named
twice is deleted once.

Version notes: v2 flexible.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from strandline_broker.api.context import BrokerApi
from strandline_broker.api.request import Request
from strandline_broker.api.support.tickets import Gathering, Ticket
from strandline_broker.errors import ErrorCode
from strandline_broker.wire.api_keys import ApiKey

if TYPE_CHECKING:
    from strandline_broker.api.support.tickets import SharedTicket
    from strandline_broker.group.effects import Effects
    from strandline_broker.group.shard import GroupShard

KEY = ApiKey.DELETE_GROUPS


def handle(broker: BrokerApi, request: Request) -> Ticket:
    """Delete groups that have no members."""
    group_ids = tuple(dict.fromkeys(request.body.groups_names))
    ticket = Ticket(request, lambda code: {"results": [_result(group_id, code) for group_id in group_ids]})
    gathering = Gathering(ticket, len(group_ids), lambda results: {"results": results})
    for index, group_id in enumerate(group_ids):
        part = gathering.ticket(index, _refusal(group_id))
        broker.groups.run(group_id, part, _deletion(group_id, part))
    return ticket


def _deletion(group_id: str, ticket: SharedTicket) -> Callable[[GroupShard, int], Effects]:
    return lambda shard, now_ms: shard.delete_group(ticket, group_id, now_ms)


def _refusal(group_id: str) -> Callable[[ErrorCode], Mapping[str, Any]]:
    return lambda code: _result(group_id, code)


def _result(group_id: str, code: ErrorCode) -> Mapping[str, Any]:
    return {"group_id": group_id, "error_code": code}
