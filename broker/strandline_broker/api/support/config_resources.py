"""Resources that have configurations, and which broker answers for them. Pure.

Source: Apache Kafka 4.2, `ConfigResource.Type`, `ConfigAdminManager`, `ConfigHelper`.
"""

from __future__ import annotations

from enum import IntEnum

from strandline_broker.errors import ErrorCode, KafkaError


class ResourceType(IntEnum):
    """Kinds of resources, numbered as on the wire."""

    TOPIC = 2
    BROKER = 4
    BROKER_LOGGER = 8
    CLIENT_METRICS = 16
    GROUP = 32


def check_broker_name(name: str, broker_id: int) -> None:
    """Refuse the name of a broker that is not this one; the empty name, for all brokers, is fine.

    Raises KafkaError(INVALID_REQUEST): clients send these requests to the broker that they are about.
    """
    if not name:
        return
    try:
        named = int(name)
    except ValueError as error:
        raise KafkaError(
            ErrorCode.INVALID_REQUEST, f"Broker id must be an integer, but it is: {name}"
        ) from error
    if named != broker_id:
        raise KafkaError(
            ErrorCode.INVALID_REQUEST,
            f"Unexpected broker id, expected {broker_id} or empty string, but received {name}",
        )


def unsupported(resource_type: int) -> KafkaError:
    """Return the refusal of a kind of resources that has no configurations here."""
    if resource_type == ResourceType.BROKER_LOGGER:
        return KafkaError(
            ErrorCode.INVALID_REQUEST,
            "This broker has no Log4j loggers to describe or alter; log_level in its configuration says what it "
            "logs.",
        )
    if resource_type == ResourceType.CLIENT_METRICS:
        return KafkaError(ErrorCode.INVALID_REQUEST, "This broker collects no metrics from clients.")
    return KafkaError(ErrorCode.INVALID_REQUEST, f"Unsupported resource type: {resource_type}")
