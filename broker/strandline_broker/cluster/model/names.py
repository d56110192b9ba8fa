"""Names and ids of cluster objects: one module, so that no two writers spell the same object differently.

Operator, brokers and tests use it. Pure.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final
from uuid import UUID, uuid5

# Kubernetes allows 253, but a label value only 63 and a pod name even less in practice.
_MAX_SLUG_LENGTH: Final = 40
_HASH_LENGTH: Final = 10
_NAMESPACE: Final = UUID("6d0a3c0e-5b57-4c0e-9a52-6f1b8a3c7d21")
_DNS_1123_SUBDOMAIN: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_MAX_NAME_LENGTH: Final = 253


def is_object_name(name: str) -> bool:
    """Return whether Kubernetes takes `name` as an object's name (RFC 1123 subdomain)."""
    return len(name) <= _MAX_NAME_LENGTH and _DNS_1123_SUBDOMAIN.fullmatch(name) is not None


def slug(text: str) -> str:
    """Return the readable part of a generated object name: lower case letters, digits and single dashes."""
    cleaned = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    return cleaned[:_MAX_SLUG_LENGTH].rstrip("-") or "topic"


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:_HASH_LENGTH]


def partition_set_name(topic_name: str, topic_id: UUID, slice_index: int) -> str:
    """Return `<slug>-<hash>-<slice>`.

    The hash covers the topic id too: a topic that is re-created while its predecessor waits for the end of
    its grace period gets objects of its own.
    """
    return f"{slug(topic_name)}-{_digest(topic_name, str(topic_id))}-{slice_index}"


def topic_object_name(topic_name: str) -> str:
    """Return the name of the Topic object for a topic that a Kafka client creates.

    The topic's own name where Kubernetes allows it, otherwise a slug and a hash (then `spec.topicName`
    carries the name).
    """
    return topic_name if is_object_name(topic_name) else f"{slug(topic_name)}-{_digest(topic_name)}"


def lease_name(cluster: str, broker_id: int) -> str:
    """Return the name of a broker's Lease, which is also its pod's name."""
    return f"{cluster}-broker-{broker_id}"


def cluster_state_name(cluster: str) -> str:
    """Return the name of the one ClusterState of a Cluster."""
    return cluster


def topic_label(topic_name: str) -> str:
    """Return the value of the label `strandline.io/topic`: the name itself where a label can hold it."""
    if len(topic_name) <= 63 and re.fullmatch(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?", topic_name):
        return topic_name
    return f"{slug(topic_name)}-{_digest(topic_name)}"


def derive_topic_id(owner_uid: str, topic_name: str) -> UUID:
    """Return the topic id that follows from the object that asked for the topic.

    That is a Topic, or for internal topics the Cluster. Derived, not drawn: two controllers that both think
    they are alone create the same PartitionSet, and one of them is told AlreadyExists. UIDs never repeat, so
    neither do topic ids. As Kafka's `Uuid.randomUuid`, ids whose base64 form starts with a dash are passed
    over, since command lines take them for options.
    """
    for attempt in range(64):
        topic_id = uuid5(_NAMESPACE, f"{owner_uid}\0{topic_name}\0{attempt}")
        if topic_id.bytes[0] >> 2 != 62:
            return topic_id
    raise AssertionError("64 digests in a row started with the same six bits")
