"""Administration while everything goes wrong: requests that Kafka's tools send, each once, to some broker."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from tests.simulation.client import SimClient
from tests.simulation.frames import ChannelClosed

from strandline_broker.wire import cold
from strandline_broker.wire.api_keys import ApiKey

_TIMEOUT_S = 6.0
_ATTEMPTS = 4
_TOPIC_RESOURCE = 2
_SET = 0


class Admin:
    """See the module. Whether a request succeeds is no matter: the cluster has to stay right in any case."""

    def __init__(self, client: SimClient) -> None:
        self.client = client

    async def _ask(self, key: ApiKey, version: int, body: dict[str, Any]) -> None:
        client = self.client
        try:
            await client.ask_any(
                lambda cid, name: cold.encode_request(key, version, cid, name, body), _TIMEOUT_S
            )
        except ChannelClosed as error:
            client.journal.event(f"{key.name} ends: {error}")
            return
        client.journal.event(f"{key.name} is answered")

    async def elect_preferred(self, details: dict[str, Any]) -> None:
        """Move all leaderships to their first replicas."""
        body = {"election_type": 0, "topic_partitions": None, "timeout": timedelta(seconds=3)}
        await self._ask(ApiKey.ELECT_LEADERS, 2, body)

    async def set_min_isr(self, details: dict[str, Any]) -> None:
        """Change min.insync.replicas of a topic."""
        change = {"name": "min.insync.replicas", "config_operation": _SET, "value": str(details["value"])}
        resource = {
            "resource_type": _TOPIC_RESOURCE,
            "resource_name": details["topic"],
            "configs": (change,),
        }
        await self._ask(
            ApiKey.INCREMENTAL_ALTER_CONFIGS, 1, {"resources": (resource,), "validate_only": False}
        )

    async def reassign(self, details: dict[str, Any]) -> None:
        """Give a partition other replicas."""
        partition = {"partition_index": details["partition"], "replicas": tuple(details["replicas"])}
        topic = {"name": details["topic"], "partitions": (partition,)}
        body = {"topics": (topic,), "timeout": timedelta(seconds=3)}
        await self._ask(ApiKey.ALTER_PARTITION_REASSIGNMENTS, 0, body)

    async def add_partitions(self, details: dict[str, Any]) -> None:
        """Add partitions to a topic."""
        topic = {"name": details["topic"], "count": details["count"], "assignments": None}
        body = {"topics": (topic,), "timeout": timedelta(seconds=3), "validate_only": False}
        await self._ask(ApiKey.CREATE_PARTITIONS, 2, body)

    async def delete_records(self, details: dict[str, Any]) -> None:
        """Delete the older part of a partition's records, at its leader."""
        client = self.client
        place = (details["topic"], details["partition"])
        known = [
            ack.offset
            for ack in client.journal.history.acks
            if ack.partition == client.journal.number_of(place)
        ]
        offset = round(details["share"] * max(known, default=0))
        client.journal.delete_requests[place] = max(offset, client.journal.delete_requests[place])
        partition = {"partition_index": details["partition"], "offset": offset}
        topic = {"name": details["topic"], "partitions": (partition,)}
        body = {"topics": (topic,), "timeout": timedelta(seconds=5)}
        for _ in range(_ATTEMPTS):
            await client.refresh()
            leader = client.leader(place)
            if leader is None:
                continue
            try:
                answer = await client.ask(
                    leader.broker,
                    lambda cid, name: cold.encode_request(ApiKey.DELETE_RECORDS, 1, cid, name, body),
                    _TIMEOUT_S,
                )
            except ChannelClosed as error:
                client.journal.event(f"DELETE_RECORDS ends: {error}")
                continue
            row = cold.decode_response(ApiKey.DELETE_RECORDS, 1, answer)[1].topics[0].partitions[0]
            client.journal.event(f"DELETE_RECORDS of {place} below {offset}: {row.error_code}")
            if not row.error_code:
                client.journal.count("DeleteRecords answered")
                client.journal.deleted[place] = max(offset, client.journal.deleted[place])
                return

    async def create_topic(self, details: dict[str, Any]) -> None:
        """Create a topic."""
        topic = {
            "name": details["topic"],
            "num_partitions": details["partitions"],
            "replication_factor": 3,
            "assignments": (),
            "configs": (),
        }
        body = {"topics": (topic,), "timeout": timedelta(seconds=3), "validate_only": False}
        await self._ask(ApiKey.CREATE_TOPICS, 5, body)
