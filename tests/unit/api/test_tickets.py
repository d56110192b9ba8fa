"""Tickets: one answer, at most; nothing kept for a connection that is gone."""

from __future__ import annotations

import gc
import logging
import weakref
from collections.abc import Mapping
from typing import Any, cast

import pytest

from strandline_broker.api.request import Request
from strandline_broker.api.support.tickets import Gathering, Ticket
from strandline_broker.errors import ErrorCode
from strandline_broker.wire import cold
from strandline_broker.wire.api_keys import ApiKey


class FakeConnection:
    def __init__(self) -> None:
        self.closed: list[str] = []

    def close(self, reason: str) -> None:
        self.closed.append(reason)


def request(connection: FakeConnection, key: ApiKey = ApiKey.HEARTBEAT, version: int = 4) -> Request:
    return Request(key, version, 9, "tester", cast("Any", connection), None)


def refusal(code: ErrorCode) -> Mapping[str, Any]:
    return {"error_code": code}


def answered(ticket: Ticket, key: ApiKey = ApiKey.HEARTBEAT, version: int = 4) -> Any:
    assert isinstance(ticket.response, bytes)
    correlation_id, body = cold.decode_response(key, version, memoryview(ticket.response)[4:])
    assert correlation_id == 9
    return body


def test_the_first_answer_counts() -> None:
    ticket = Ticket(request(FakeConnection()), refusal)
    assert ticket.mute
    ticket.refuse(ErrorCode.REBALANCE_IN_PROGRESS)
    ticket.answer({"error_code": ErrorCode.NONE})
    ticket.refuse(ErrorCode.NOT_COORDINATOR)
    assert answered(ticket).error_code is ErrorCode.REBALANCE_IN_PROGRESS


def test_finish_completes_answers_and_refusals() -> None:
    ticket = Ticket(request(FakeConnection()), refusal, lambda body: {**body, "throttle_time": 5})
    ticket.refuse(ErrorCode.NONE)
    assert answered(ticket).throttle_time.total_seconds() == 0.005


def test_a_ticket_of_a_lost_connection_holds_nothing_and_answers_nobody() -> None:
    connection = FakeConnection()
    ticket = Ticket(request(connection), refusal)
    alive = weakref.ref(connection)
    ticket.detach()
    del connection
    gc.collect()
    assert alive() is None
    ticket.answer({"error_code": ErrorCode.NONE})
    ticket.refuse(ErrorCode.NOT_COORDINATOR)
    assert not ticket.done


def test_an_answer_that_cannot_be_encoded_ends_the_connection(caplog: pytest.LogCaptureFixture) -> None:
    connection = FakeConnection()
    ticket = Ticket(request(connection), refusal)
    with caplog.at_level(logging.CRITICAL, "strandline_broker"):
        ticket.answer({"no_such_field": 1})
    assert connection.closed == ["HEARTBEAT failed"]
    assert not ticket.done


def results(bodies: list[Mapping[str, Any]]) -> Mapping[str, Any]:
    return {"results": bodies}


def test_a_gathering_answers_when_its_last_part_is_there_in_the_order_asked() -> None:
    ticket = Ticket(request(FakeConnection(), ApiKey.DELETE_GROUPS, 2), refusal)
    gathering = Gathering(ticket, 2, results)
    first = gathering.ticket(0, lambda code: {"group_id": "a", "error_code": code})
    second = gathering.ticket(1, lambda code: {"group_id": "b", "error_code": code})
    second.refuse(ErrorCode.NOT_COORDINATOR)
    second.answer({"group_id": "b", "error_code": ErrorCode.NONE})
    assert not ticket.done
    first.answer({"group_id": "a", "error_code": ErrorCode.NONE})
    body = answered(ticket, ApiKey.DELETE_GROUPS, 2)
    assert [(r.group_id, r.error_code) for r in body.results] == [
        ("a", ErrorCode.NONE),
        ("b", ErrorCode.NOT_COORDINATOR),
    ]


def test_an_empty_gathering_answers_at_once() -> None:
    ticket = Ticket(request(FakeConnection(), ApiKey.DELETE_GROUPS, 2), refusal)
    Gathering(ticket, 0, results)
    assert answered(ticket, ApiKey.DELETE_GROUPS, 2).results == ()
