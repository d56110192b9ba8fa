"""Work at a fixed rate: one-record requests whose latency is measured, and a writer that keeps a topic growing.

The writer is a process of its own (`python -m benchmarks.paced BOOTSTRAP TOPIC PARTITIONS BYTES_PER_S`), so that it does
not hold up the client that reads the clock. It writes until its standard input ends, then prints the bytes it wrote.
"""

from __future__ import annotations

import argparse
import random
import selectors
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from confluent_kafka import KafkaError, Message, Producer

from benchmarks import requests
from benchmarks.load import LoadError
from benchmarks.raw_client import RawClient, RequestFailedError, quiet

_VALUE_BYTES = 64_000
_TICK_S = 0.01
_END_S = 60.0


def latencies(
    host: str, port: int, topic: bytes, partitions: Sequence[int], value: bytes, rate: float, seconds: float
) -> list[float]:
    """Send so many one-record requests (acks=all) per second on one connection; return seconds to each answer.

    A request that is due while an earlier one waits counts from when it was due: a pause is felt by all it holds up.

    Raises:
        RequestFailedError: one was refused.

    """
    client = RawClient(host, port)
    layout = requests.produce_answer(topic)
    data = requests.batch([value], int(time.time() * 1000)).data
    ring = [requests.produce(topic, partition, data, 0) for partition in partitions]
    took: list[float] = []
    clock = time.perf_counter
    try:
        with quiet():
            began = clock()
            for index in range(int(rate * seconds)):
                due = began + index / rate
                if (left := due - clock()) > 0:
                    time.sleep(left)
                    due = clock()  # what the sleep took too long is not the broker's
                answer = client.ask(ring[index % len(ring)])
                took.append(clock() - due)
                if answer[layout.error_at : layout.error_at + 2] != b"\0\0":
                    raise RequestFailedError(f"Produce: error {answer[layout.error_at :][:2].hex()}")
    finally:
        client.close()
    return took


@contextmanager
def writer(bootstrap: str, topic: str, partitions: int, bytes_per_s: int) -> Iterator[list[int]]:
    """Write at a steady rate within the block; the list gets the number of bytes behind it.

    Raises:
        LoadError: a record was refused, or the writer kept less than nine tenths of its rate.

    """
    command = [
        sys.executable,
        "-m",
        "benchmarks.paced",
        bootstrap,
        topic,
        str(partitions),
        str(bytes_per_s),
    ]
    written: list[int] = []
    began = time.monotonic()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield written
        finally:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(_END_S)
            except subprocess.TimeoutExpired:
                process.kill()
        assert process.stdout is not None
        output = process.stdout.read()
    took = time.monotonic() - began
    if process.returncode != 0 or not output.strip().isdigit():
        raise LoadError(f"the writer of {topic} failed ({process.returncode}): {output.decode()[-500:]}")
    written.append(int(output))
    if written[0] < 0.9 * bytes_per_s * (took - 2.0):
        raise LoadError(
            f"{written[0]} bytes were written to {topic} in {took:.0f} s, less than was asked for"
        )


def _write(bootstrap: str, topic: str, partitions: int, bytes_per_s: int) -> int:
    failed: list[str] = []

    def delivered(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            failed.append(str(error))

    producer = Producer({"bootstrap.servers": bootstrap, "acks": "all", "linger.ms": 0})
    values = [random.Random(seed).randbytes(_VALUE_BYTES) for seed in range(16)]
    ended = selectors.DefaultSelector()
    ended.register(sys.stdin, selectors.EVENT_READ)
    sent = 0
    began = time.monotonic()
    while not ended.select(_TICK_S):
        while sent * _VALUE_BYTES < bytes_per_s * (time.monotonic() - began):
            try:
                producer.produce(
                    topic, values[sent % len(values)], partition=sent % partitions, on_delivery=delivered
                )
            except BufferError:
                break
            sent += 1
        producer.poll(0)
    left = producer.flush(_END_S)
    if left or failed:
        sys.exit(f"{left} records left, {len(failed)} refused: {failed[:1]}")
    return sent * _VALUE_BYTES


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.paced", description=__doc__)
    parser.add_argument("bootstrap")
    parser.add_argument("topic")
    parser.add_argument("partitions", type=int)
    parser.add_argument("bytes_per_s", type=int)
    options = parser.parse_args()
    print(_write(options.bootstrap, options.topic, options.partitions, options.bytes_per_s))


if __name__ == "__main__":
    main()
