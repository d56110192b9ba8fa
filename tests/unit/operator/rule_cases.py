"""What the CEL rules of the CRDs refuse and let pass, as one table: for `strandline dev`'s validator and for an API server.

Every rule has a case (`test_rules` sees to it), so both say the same of the same object.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]
Change = Callable[[Object], object]


@dataclass(frozen=True, slots=True)
class Case:
    """`change` is applied to a base object. `update`: as a change of the stored base, else as a new object.

    `refusal` is part of the message, None where the object is accepted.
    """

    name: str
    base: Object
    change: Change
    refusal: str | None = None
    update: bool = False

    def object(self) -> Object:
        """Return the object to validate."""
        result = copy.deepcopy(self.base)
        self.change(result)
        return result


def _manifest(kind: str, name: str, spec: Object) -> Object:
    return {"apiVersion": "strandline.io/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


TOPIC = _manifest("Topic", "orders", {"clusterRef": {"name": "demo"}, "partitions": 3})
RENAMED = _manifest("Topic", "orders-v1", {"clusterRef": {"name": "demo"}, "topicName": "Orders_v1"})
CLUSTER = _manifest(
    "Cluster",
    "demo",
    {
        "storage": {"size": "10Gi", "className": "fast"},
        "tiering": {"bucket": "archive", "prefix": "a/b"},
        "listeners": [{"name": "PLAIN", "port": 9092}, {"name": "TLS", "port": 9093}],
    },
)
PLAIN = _manifest("Cluster", "demo", {"storage": {"size": "10Gi"}})


def _topic_config(**config: str) -> Change:
    return lambda t: t["spec"].update(config={key.replace("_", "."): value for key, value in config.items()})


CASES = [
    # -- Topic
    Case("topic", TOPIC, lambda t: None),
    Case("topic renamed", TOPIC, lambda t: t["spec"].update(topicName="other"), "topicName is immutable", True),
    Case("topic names itself", TOPIC, lambda t: t["spec"].update(topicName="orders"), None, True),
    Case("topic loses its name", RENAMED, lambda t: t["spec"].pop("topicName"), "topicName is immutable", True),
    Case("internal topic", TOPIC, lambda t: t["spec"].update(topicName="__consumer_offsets"), "this topic is internal"),
    Case("dot", TOPIC, lambda t: t["spec"].update(topicName="."), "cannot be named '.' or '..'"),
    Case("dots", TOPIC, lambda t: t["spec"].update(topicName=".."), "cannot be named '.' or '..'"),
    Case("three dots", TOPIC, lambda t: t["spec"].update(topicName="...")),
    Case("another cluster", TOPIC, lambda t: t["spec"]["clusterRef"].update(name="x"), "clusterRef is immutable", True),
    Case("fewer partitions", TOPIC, lambda t: t["spec"].update(partitions=2), "partitions cannot be decreased", True),
    Case("default partitions", TOPIC, lambda t: t["spec"].pop("partitions"), "partitions cannot be decreased", True),
    Case("more partitions", TOPIC, lambda t: t["spec"].update(partitions=4), None, True),
    Case("no minimum", TOPIC, _topic_config(min_insync_replicas="0"), "must be a whole number of at least 1"),
    Case("minimum in words", TOPIC, _topic_config(min_insync_replicas="two"), "must be a whole number of at least 1"),
    Case("minimum too high", TOPIC, _topic_config(min_insync_replicas="2"), "is above spec.replicas"),
    Case("minimum as high", TOPIC, _topic_config(min_insync_replicas="1")),
    Case(
        "tiered and compacted",
        TOPIC,
        _topic_config(remote_storage_enable="TRUE", cleanup_policy="compact,delete"),
        "compacted topics are not tiered",
    ),
    Case("compacted", TOPIC, _topic_config(remote_storage_enable="false", cleanup_policy="compact")),
    # -- Cluster
    Case("cluster", CLUSTER, lambda c: None),
    Case("cluster without a spec", PLAIN, lambda c: c.update(spec={})),
    Case("long name", PLAIN, lambda c: c["metadata"].update(name="d" * 41), "at most 40 letters"),
    Case("name of a Service at its longest", PLAIN, lambda c: c["metadata"].update(name="d" * 40)),
    Case("name with a dot", PLAIN, lambda c: c["metadata"].update(name="demo.one"), "at most 40 letters"),
    Case("name with a digit first", PLAIN, lambda c: c["metadata"].update(name="1demo"), "must begin with a letter"),
    Case(
        "minimum above brokers",
        CLUSTER,
        lambda c: c["spec"].update(config={"min.insync.replicas": "4"}),
        "no topic could ever accept acks=all",
    ),
    Case("minimum of all brokers", CLUSTER, lambda c: c["spec"].update(config={"min.insync.replicas": "3"})),
    Case("no tiering any more", CLUSTER, lambda c: c["spec"].pop("tiering"), "tiering cannot be removed", True),
    Case("tiering later", PLAIN, lambda c: c["spec"].update(tiering={"bucket": "archive"}), None, True),
    Case("another bucket", CLUSTER, lambda c: c["spec"]["tiering"].update(bucket="other"), "bucket is immutable", True),
    Case("another prefix", CLUSTER, lambda c: c["spec"]["tiering"].update(prefix="c"), "prefix is immutable", True),
    Case("no prefix any more", CLUSTER, lambda c: c["spec"]["tiering"].pop("prefix"), "prefix is immutable", True),
    Case("smaller volumes", CLUSTER, lambda c: c["spec"]["storage"].update(size="10G"), "cannot shrink", True),
    Case("as large volumes", CLUSTER, lambda c: c["spec"]["storage"].update(size="10240Mi"), None, True),
    Case("larger volumes", CLUSTER, lambda c: c["spec"]["storage"].update(size="1Ti"), None, True),
    Case("another class", CLUSTER, lambda c: c["spec"]["storage"].update(className="x"), "className is immutable", True),
    Case("no class any more", CLUSTER, lambda c: c["spec"]["storage"].pop("className"), "added or removed later", True),
    Case("a class later", PLAIN, lambda c: c["spec"]["storage"].update(className="x"), "added or removed later", True),
    Case("one port twice", CLUSTER, lambda c: c["spec"]["listeners"][0].update(port=9093), "have the same port"),
    Case("listeners in another order", CLUSTER, lambda c: c["spec"]["listeners"].reverse(), None, True),
    Case("more brokers", CLUSTER, lambda c: c["spec"].update(replicas=5), None, True),
]  # fmt: skip
