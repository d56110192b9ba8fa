"""Produce three records and read them back with confluent-kafka: `python examples/hello.py [BOOTSTRAP]`."""

import sys

from confluent_kafka import Consumer, Producer, TopicPartition

BOOTSTRAP = sys.argv[1] if len(sys.argv) > 1 else "localhost:9092"
TOPIC = "hello"


def main() -> None:
    producer = Producer({"bootstrap.servers": BOOTSTRAP, "enable.idempotence": True})
    for word in ("high", "water", "mark"):
        producer.produce(
            TOPIC, key=word, value=f"{word}!", on_delivery=lambda error, _: print(error or "acknowledged")
        )
    if producer.flush(10):
        sys.exit(f"no answer from {BOOTSTRAP}: is `make run` running?")

    consumer = Consumer({"bootstrap.servers": BOOTSTRAP, "group.id": "hello", "enable.partition.eof": True})
    consumer.assign([TopicPartition(TOPIC, 0, 0)])
    while True:
        message = consumer.poll(10)
        if message is None:
            sys.exit(f"nothing came from {BOOTSTRAP}")
        if message.error():
            break  # the end of the partition
        print(
            f"{message.topic()}[{message.partition()}] @ {message.offset()}: {message.key()} = {message.value()}"
        )
    consumer.close()


if __name__ == "__main__":
    main()
