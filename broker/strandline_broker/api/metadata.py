"""Metadata (key 3), versions 0-13.

Differences from Kafka: the controller is the lowest live broker (every broker takes admin requests). A topic
that is being created by a client's asking answers LEADER_NOT_AVAILABLE, where Kafka says
UNKNOWN_TOPIC_OR_PARTITION; clients retry both. Where `Cluster.spec.kafkaAdmin` is None nothing is
auto-created.

Version notes: v0 asks for all topics with an empty list, filters dead replicas and says
REPLICA_NOT_AVAILABLE; v0-3 always auto-create if the broker allows it; v6 tells LISTENER_NOT_FOUND; v8-10
cluster operations (KIP-430); v10 topic ids, v12 asking by id (KIP-516); v13 an error for the whole answer
(KIP-1102).

Takes frames, not decoded requests: bytes of topics and whole answers are cached until the view's version
changes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from strandline_broker.api.context import BrokerApi
from strandline_broker.api.support import operations, topic_names
from strandline_broker.api.support.auto_creation import AutoCreation
from strandline_broker.api.support.brokers import controller_id, live_brokers
from strandline_broker.api.support.topic_metadata import describe_topic
from strandline_broker.errors import ErrorCode
from strandline_broker.wire.api_keys import ApiKey
from strandline_broker.wire.metadata import (
    MetadataBroker,
    MetadataRequest,
    MetadataTopic,
    decode_metadata,
    encode_metadata_response,
    encode_topic,
)
from strandline_broker.wire.primitives import NO_UUID, with_correlation_id

if TYPE_CHECKING:
    from strandline_broker.net.connection import Connection
    from strandline_broker.wire.header import RequestHeader

KEY = ApiKey.METADATA

_FIRST_BY_ID = 12
# Distinct combinations of version, listener and flags; a broker has few listeners, so this is never reached
# in earnest.
_MAX_CACHES = 256
# Missing topics of one request that are looked at for creation; for the rest the client comes again.
_MAX_CREATIONS = 100


class _Cache:
    """Encoded bytes for one combination of version, listener and flags, at one version of the view."""

    __slots__ = ("brokers", "controller_id", "everything", "silent", "topics")

    def __init__(self, brokers: list[MetadataBroker], controller: int, silent: frozenset[int]) -> None:
        self.brokers = brokers
        self.controller_id = controller
        self.silent = silent
        self.topics: dict[str, bytes] = {}
        # The answer to "all topics".
        self.everything: bytes | None = None


class MetadataHandler:
    """Answers from cached bytes."""

    def __init__(self, broker: BrokerApi) -> None:
        self._broker = broker
        self._auto_creation = AutoCreation(broker)
        self._caches: dict[tuple[int, str, bool, bool], _Cache] = {}
        self._view_version = -1
        self._silent: frozenset[int] = frozenset()

    def handle(self, connection: Connection, header: RequestHeader, frame: memoryview) -> bytes:
        """Answer one request. Raises DecodeError."""
        request = decode_metadata(frame, header.body_offset, header.api_version)
        answer = _Answer(self._broker, header.api_version, connection.listener.name, request)
        cache = self._cache(answer)
        if request.topics is None:
            if cache.everything is None:
                names = sorted(self._broker.view.topics)
                cache.everything = answer.encode(cache, [answer.topic(cache, name) for name in names])
            return with_correlation_id(cache.everything, header.correlation_id)
        topics = answer.asked_for(cache, request.topics, self._auto_creation)
        return with_correlation_id(answer.encode(cache, topics), header.correlation_id)

    def _cache(self, answer: _Answer) -> _Cache:
        view = self._broker.view
        silent = view.silent_brokers()
        known = (self._view_version, self._silent) == (view.version, silent)
        if not known or len(self._caches) >= _MAX_CACHES:
            self._caches.clear()
            self._view_version, self._silent = view.version, silent
        cache = self._caches.get(answer.key)
        if cache is None:
            own_id = self._broker.config.broker_id
            brokers = [MetadataBroker(*address) for address in live_brokers(view, answer.listener, own_id)]
            controller = controller_id(view, answer.listener, own_id)
            cache = self._caches[answer.key] = _Cache(brokers, controller, silent)
        return cache

    def close(self) -> None:
        """Stop waiting for topics that are being created."""
        self._auto_creation.close()


class _Answer:
    """One answer in the making: what depends on the request."""

    __slots__ = ("_creations_tried", "broker", "key", "listener", "request", "version")

    def __init__(self, broker: BrokerApi, version: int, listener: str, request: MetadataRequest) -> None:
        self._creations_tried = 0
        self.broker = broker
        self.version = version
        self.listener = listener
        self.request = request
        self.key = (
            version,
            listener,
            request.include_topic_authorized_operations,
            request.include_cluster_authorized_operations,
        )

    def encode(self, cache: _Cache, topics: list[bytes]) -> bytes:
        """Return the frame, with correlation id 0."""
        asked = self.request.include_cluster_authorized_operations
        return encode_metadata_response(
            self.version,
            0,
            cache.brokers,
            self.broker.cluster_id,
            cache.controller_id,
            topics,
            cluster_authorized_operations=operations.CLUSTER if asked else operations.NOT_REQUESTED,
        )

    def topic(self, cache: _Cache, name: str) -> bytes:
        """Return the bytes of a topic that exists."""
        encoded = cache.topics.get(name)
        if encoded is None:
            topic = self.broker.view.topics[name]
            described = describe_topic(
                self.broker.view,
                topic,
                version=self.version,
                listener=self.listener,
                own_id=self.broker.config.broker_id,
                silent=cache.silent,
                authorized_operations=self._topic_operations,
            )
            encoded = cache.topics[name] = encode_topic(self.version, described)
        return encoded

    def asked_for(
        self, cache: _Cache, wishes: list[tuple[bytes, str | None]], auto_creation: AutoCreation
    ) -> list[bytes]:
        """Return the topics of a request that names some."""
        ids = dict.fromkeys(topic_id for topic_id, _ in wishes if topic_id != NO_UUID)
        if self.version < _FIRST_BY_ID and (ids or any(name is None for _, name in wishes)):
            return [self._missing(ErrorCode.INVALID_REQUEST, name, NO_UUID) for _, name in wishes]
        if ids:
            # As Kafka: once one id is given, only ids count.
            return [self._by_id(cache, topic_id) for topic_id in ids]
        names = dict.fromkeys(name for _, name in wishes if name is not None)
        return [self._by_name(cache, name, auto_creation) for name in names]

    def _by_id(self, cache: _Cache, topic_id: bytes) -> bytes:
        topic = self.broker.view.topic_by_id(UUID(bytes=topic_id))
        if topic is None:
            return self._missing(ErrorCode.UNKNOWN_TOPIC_ID, None, topic_id)
        return self.topic(cache, topic.topic_name)

    def _by_name(self, cache: _Cache, name: str, auto_creation: AutoCreation) -> bytes:
        if self.broker.view.topic_by_name(name) is not None:
            return self.topic(cache, name)
        if not topic_names.is_valid(name):
            error = ErrorCode.INVALID_TOPIC_EXCEPTION
        elif self.request.allow_auto_topic_creation and self.broker.config.auto_create_topics_enable:
            self._creations_tried += 1
            within = self._creations_tried <= _MAX_CREATIONS
            error = auto_creation.start(name) if within else ErrorCode.LEADER_NOT_AVAILABLE
        else:
            error = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        return self._missing(error, name, NO_UUID)

    def _missing(self, error: ErrorCode, name: str | None, topic_id: bytes) -> bytes:
        internal = name is not None and topic_names.is_internal(name)
        return encode_topic(
            self.version, MetadataTopic(error, name, topic_id, internal, (), self._topic_operations)
        )

    @property
    def _topic_operations(self) -> int:
        asked = self.request.include_topic_authorized_operations
        return operations.TOPIC if asked else operations.NOT_REQUESTED
