"""DescribeTopicPartitions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.unit.api.support import FakeBroker, FakeConnection, add_topic, broker, led, partition_set, run

from strandline_broker.api.support import operations
from strandline_broker.cluster.model import PARTITION_SET, ReplicaRef
from strandline_broker.errors import ErrorCode
from strandline_broker.wire.api_keys import ApiKey

Page = list[tuple[str, list[int]]]


async def describe(
    fake: FakeBroker,
    *names: str,
    limit: int = 2000,
    cursor: tuple[str, int] | None = None,
    listener: str = "PLAINTEXT",
) -> Any:
    body = {
        "topics": tuple({"name": name} for name in names),
        "response_partition_limit": limit,
        "cursor": {"topic_name": cursor[0], "partition_index": cursor[1]} if cursor else None,
    }
    return await fake.call(ApiKey.DESCRIBE_TOPIC_PARTITIONS, 0, body, FakeConnection(listener))


def page(answer: Any) -> tuple[Page, tuple[str, int] | None]:
    rows = [(topic.name, [part.partition_index for part in topic.partitions]) for topic in answer.topics]
    cursor = answer.next_cursor
    return rows, (cursor.topic_name, cursor.partition_index) if cursor is not None else None


def test_everything_about_a_topic() -> None:
    async def main() -> None:
        async with broker(brokers=2) as fake:
            state = replace(led(0, 1, 2, epoch=4, isr=(0,)), elr=(ReplicaRef(2, 7),))
            made = partition_set("t", [state, led(5)])
            await add_topic(fake, made)
            answer = await describe(fake, "t")
            (topic,) = answer.topics
            assert (topic.error_code, topic.topic_id, topic.is_internal) == (
                ErrorCode.NONE,
                made.topic_id,
                False,
            )
            assert topic.topic_authorized_operations == operations.TOPIC
            first, second = topic.partitions
            assert (first.leader_id, first.leader_epoch, first.replica_nodes, first.isr_nodes) == (
                0,
                4,
                (0, 1, 2),
                (0,),
            )
            assert (first.eligible_leader_replicas, first.last_known_elr, first.offline_replicas) == (
                (2,),
                (),
                (2,),
            )
            # Never null: clients iterate.
            assert (second.eligible_leader_replicas, second.last_known_elr) == ((), ())
            assert (second.leader_id, second.offline_replicas) == (-1, (5,))
            assert answer.next_cursor is None

    run(main())


def test_a_leader_that_the_listener_does_not_reach_is_none() -> None:
    async def main() -> None:
        async with broker() as fake:
            await add_topic(fake, partition_set("t", [led(0)]))
            (topic,) = (await describe(fake, "t", listener="UNKNOWN")).topics
            assert [(part.leader_id, part.offline_replicas) for part in topic.partitions] == [(-1, (0,))]

    run(main())


def test_pages_cover_everything_once() -> None:
    async def main() -> None:
        async with broker() as fake:
            for name, count in (("b", 3), ("a", 2), ("d", 1), ("c", 4)):
                await add_topic(fake, partition_set(name, [led(0)] * count))
            assert page(await describe(fake)) == (
                [("a", [0, 1]), ("b", [0, 1, 2]), ("c", [0, 1, 2, 3]), ("d", [0])],
                None,
            )
            for limit in range(-1, 12):
                seen: list[tuple[str, int]] = []
                cursor: tuple[str, int] | None = None
                for _ in range(20):
                    rows, cursor = page(await describe(fake, limit=limit, cursor=cursor))
                    assert sum(len(numbers) for _, numbers in rows) <= max(limit, 1)
                    seen += [(name, number) for name, numbers in rows for number in numbers]
                    if cursor is None:
                        break
                assert seen == [
                    (n, i) for n, count in zip("abcd", (2, 3, 4, 1), strict=True) for i in range(count)
                ]

    run(main())


def test_a_full_page_ends_before_the_next_topic() -> None:
    async def main() -> None:
        async with broker() as fake:
            for name in ("a", "b", "c"):
                await add_topic(fake, partition_set(name, [led(0)] * 2))
            assert page(await describe(fake, limit=2)) == ([("a", [0, 1])], ("b", 0))
            assert page(await describe(fake, "c", "a", limit=3)) == ([("a", [0, 1]), ("c", [0])], ("c", 1))
            assert page(await describe(fake, "c", "a", cursor=("c", 1))) == ([("c", [1])], None)
            # A topic that went away between two pages is passed over.
            assert page(await describe(fake, cursor=("bb", 1))) == ([("c", [0, 1])], None)
            # A cursor beyond the end of its topic.
            assert page(await describe(fake, cursor=("b", 9))) == ([("b", []), ("c", [0, 1])], None)

    run(main())


def test_what_is_not_there_and_what_makes_no_sense() -> None:
    async def main() -> None:
        async with broker() as fake:
            await add_topic(fake, partition_set("t", [led(0)]))
            answer = await describe(fake, "t", "missing", "a b", "t")
            assert [(topic.name, topic.error_code) for topic in answer.topics] == [
                ("a b", ErrorCode.INVALID_TOPIC_EXCEPTION),
                ("missing", ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
                ("t", ErrorCode.NONE),
            ]
            for cursor in (("other", 0), ("t", -1)):
                answer = await describe(fake, "t", cursor=cursor)
                assert [topic.error_code for topic in answer.topics] == [ErrorCode.INVALID_REQUEST]

    run(main())


def test_the_numbers_of_a_slice_go_on() -> None:
    async def main() -> None:
        async with broker() as fake:
            first = partition_set("t", [led(0)] * 100)
            second = replace(partition_set("t", [led(0)] * 2), slice_index=1, name=f"{first.name}-1")
            await fake.store.create(PARTITION_SET, second.to_object())
            await add_topic(fake, first)
            await fake.view.wait_until(lambda view: view.topics["t"].partition_count == 102, 10)
            answer = await describe(fake, limit=101)
            assert answer.topics[0].partitions[-1].partition_index == 100
            assert page(answer)[1] == ("t", 101)

    run(main())
