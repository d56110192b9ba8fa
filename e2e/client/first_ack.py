"""Produce to a topic from the moment it can be reached, and say when the first record was acknowledged.

    python first_ack.py demo-bootstrap:9092 hello

Started before the cluster exists. Prints `waiting`, then `acknowledged PARTITION OFFSET EPOCH_SECONDS`, and ends; the
exit status is 1 after ten minutes without an acknowledgement.
"""

from __future__ import annotations

import socket
import sys
import time

from confluent_kafka import KafkaError, Message, Producer

DEADLINE_S = 600.0
# Much shorter than a client's defaults: what is measured is the cluster, not how long its clients pause.
_LOOK_INTERVAL_S = 0.05


def main(bootstrap: str, topic: str) -> int:
    """Return the exit status."""
    acknowledged: list[tuple[Message, float]] = []
    failures: list[KafkaError] = []

    def delivered(error: KafkaError | None, message: Message) -> None:
        if error is None:
            acknowledged.append((message, time.time()))
        else:
            failures.append(error)

    print("waiting", flush=True)
    deadline = time.monotonic() + DEADLINE_S
    while not _resolves(bootstrap):
        if time.monotonic() > deadline:
            return 1
        time.sleep(_LOOK_INTERVAL_S)
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "acks": "all",
            "enable.idempotence": True,
            "reconnect.backoff.ms": 20,
            "reconnect.backoff.max.ms": 100,
            "retry.backoff.ms": 20,
            # Until a node knows a new Service, what is sent to its address is lost.
            "socket.connection.setup.timeout.ms": 1000,
            "topic.metadata.refresh.fast.interval.ms": 50,
            # The topic is announced a moment after the brokers.
            "topic.metadata.propagation.max.ms": 600_000,
            "log_level": 2,
        }
    )
    producer.produce(topic, b"the first record", on_delivery=delivered)
    while not acknowledged and not failures and time.monotonic() < deadline:
        producer.poll(_LOOK_INTERVAL_S)
    if not acknowledged:
        print(f"failed: {failures}", flush=True)
        return 1
    message, at = acknowledged[0]
    print(f"acknowledged {message.partition()} {message.offset()} {at:.3f}", flush=True)
    return 0


def _resolves(bootstrap: str) -> bool:
    host, _, port = bootstrap.rpartition(":")
    try:
        socket.getaddrinfo(host, port)
    except OSError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
