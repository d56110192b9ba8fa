"""Creates topics because a client asked for their metadata: in the background, a bounded number at a time."""

from __future__ import annotations

import asyncio
import logging

from strandline_broker.api.context import BrokerApi
from strandline_broker.api.support.topic_creation import create_topic
from strandline_broker.api.support.topic_plan import TopicPlan, plan_topic
from strandline_broker.errors import ErrorCode, KafkaError

logger = logging.getLogger(__name__)

_MAX_IN_FLIGHT = 100
_TIMEOUT_S = 30.0


class AutoCreation:
    """Topics under way; asking again for one of them starts nothing."""

    def __init__(self, broker: BrokerApi) -> None:
        self._broker = broker
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def start(self, name: str) -> ErrorCode:
        """Begin to create a topic and return what its metadata says meanwhile, or why it cannot be."""
        if name in self._tasks or len(self._tasks) >= _MAX_IN_FLIGHT:
            return ErrorCode.LEADER_NOT_AVAILABLE  # retriable: the client comes again
        try:
            plan = plan_topic(self._broker.view, self._broker.config, name)
        except KafkaError as refusal:
            if refusal.code in (ErrorCode.INVALID_TOPIC_EXCEPTION, ErrorCode.INVALID_REPLICATION_FACTOR):
                return refusal.code
            return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        task = asyncio.get_running_loop().create_task(self._create(plan), name=f"auto-create {name}")
        self._tasks[name] = task
        task.add_done_callback(lambda _: self._tasks.pop(name, None))
        return ErrorCode.LEADER_NOT_AVAILABLE

    async def _create(self, plan: TopicPlan) -> None:
        deadline = asyncio.get_running_loop().time() + _TIMEOUT_S
        try:
            await create_topic(self._broker, plan, deadline)
        except KafkaError as refusal:
            if refusal.code is not ErrorCode.TOPIC_ALREADY_EXISTS:
                logger.warning("topic %s was not auto-created: %s", plan.name, refusal)
        else:
            logger.info("auto-created topic %s with %d partition(s)", plan.name, plan.partitions)

    def close(self) -> None:
        """Stop waiting; what was asked of the cluster store stays asked."""
        for task in self._tasks.values():
            task.cancel()
