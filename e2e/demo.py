"""The Cluster under test: where its brokers are, whom they lead, and how clients outside reach them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from e2e.kube import Kube, is_ready, wait_for

OUTSIDE = {"name": "OUTSIDE", "port": 9094, "type": "NodePort"}
CONTAINER = "broker"
READY_S = 300.0


@dataclass(frozen=True, slots=True)
class BrokerPod:
    """A broker's pod as its status shows it. `container_id` is as the node's runtime knows it, empty while none runs."""

    broker_id: int
    name: str
    uid: str
    node: str
    ip: str
    ready: bool
    container_id: str
    restarts: int
    revision: str


@dataclass(frozen=True, slots=True)
class Demo:
    """One Cluster in one namespace."""

    kube: Kube
    namespace: str
    name: str = "demo"

    def add_outside_listener(self) -> None:
        """Let clients outside the cluster in: brokers restart one by one."""
        inside = {"name": "PLAIN", "port": 9092}
        self.patch({"listeners": [inside, OUTSIDE]})
        wait_for(self._has_outside_service, READY_S, "the Service of the listener")
        self.wait_until_ready()

    def _has_outside_service(self) -> bool:
        names = self.kube.kubectl("get", "services", "--namespace", self.namespace, "--output", "name")
        return f"service/{self.name}-bootstrap-outside" in names.split()

    def patch(self, spec: dict[str, Any]) -> None:
        """Merge into the Cluster's spec."""
        self.kube.patch(self.namespace, "clusters", self.name, {"spec": spec})

    def cluster(self) -> dict[str, Any]:
        """Return the Cluster."""
        found = self.kube.custom(self.namespace, "clusters", self.name)
        assert found is not None, f"the Cluster {self.namespace}/{self.name} is gone"
        return found

    def wait_until_ready(self, timeout_s: float = READY_S) -> None:
        """Wait until the Cluster is ready, nothing is out of sync, and all pods are ready and as asked for."""
        wait_for(self._is_well, timeout_s, f"{self.name} to be well: {self._doing()}")

    def _is_well(self) -> bool:
        cluster = self.cluster()
        status = cluster.get("status") or {}
        if not is_ready(cluster) or status.get("underReplicated") or status.get("offline"):
            return False
        if any(one["type"] == "Reconciling" and one["status"] == "True" for one in status["conditions"]):
            return False
        stateful_set = self.kube.apps.read_namespaced_stateful_set(
            f"{self.name}-broker", self.namespace, _request_timeout=15
        )
        if stateful_set.status.observed_generation != stateful_set.metadata.generation:
            return False
        newest = stateful_set.status.update_revision
        brokers = self.brokers()
        return len(brokers) == cluster["spec"]["replicas"] and all(
            broker.ready and broker.revision == newest for broker in brokers
        )

    def _doing(self) -> str:
        return f"kubectl -n {self.namespace} describe cluster {self.name}"

    def brokers(self) -> list[BrokerPod]:
        """Return the brokers' pods by broker id; those that are going are not ready."""
        pods = self.kube.core.list_namespaced_pod(
            self.namespace, label_selector=f"strandline.io/cluster={self.name}", _request_timeout=15
        ).items
        found = [_broker_pod(pod) for pod in pods if "apps.kubernetes.io/pod-index" in pod.metadata.labels]
        return sorted(found, key=lambda pod: pod.broker_id)

    def broker(self, broker_id: int) -> BrokerPod:
        """Return one broker's pod."""
        return next(pod for pod in self.brokers() if pod.broker_id == broker_id)

    def delete_pod(self, pod: BrokerPod, *options: str) -> None:
        """Ask for the end of a pod."""
        self.kube.kubectl("delete", "pod", "--namespace", self.namespace, pod.name, "--wait=false", *options)

    def leaderships(self, topic: str) -> dict[int, tuple[int, int]]:
        """Return the leader of every partition of a topic, -1 for none, and its leader epoch."""
        slices = self.kube.customs(self.namespace, "partitionsets", f"strandline.io/cluster={self.name}")
        found: dict[int, tuple[int, int]] = {}
        for slice_ in slices:
            spec = slice_["spec"]
            if spec["topicName"] == topic and not spec.get("deleting"):
                first = spec["slice"] * 100
                found |= {
                    first + i: (state["leader"], state["leaderEpoch"])
                    for i, state in enumerate(spec["partitions"])
                }
        return found

    def led_by(self, topic: str, broker_id: int) -> list[int]:
        """Return the partitions of a topic that a broker leads."""
        return [
            partition for partition, (leader, _) in self.leaderships(topic).items() if leader == broker_id
        ]

    def victim(self, topic: str, spared_node: str = "") -> tuple[BrokerPod, list[int]]:
        """Return the broker that leads most partitions of a topic, and these; none on `spared_node`."""
        counts = Counter(leader for leader, _ in self.leaderships(topic).values())
        pods = [pod for pod in self.brokers() if pod.node != spared_node]
        pod = max(pods, key=lambda pod: counts[pod.broker_id])
        partitions = self.led_by(topic, pod.broker_id)
        assert partitions, f"{pod.name} leads nothing of {topic}"
        return pod, partitions

    def outside(self) -> str:
        """Return where clients outside the cluster connect to first: a port of every node."""
        service = self.kube.core.read_namespaced_service(
            f"{self.name}-bootstrap-outside", self.namespace, _request_timeout=15
        )
        port = service.spec.ports[0].node_port
        return ",".join(f"{address}:{port}" for address in self._node_addresses())

    def _node_addresses(self) -> list[str]:
        nodes = self.kube.core.list_node(_request_timeout=15).items
        return [
            address.address
            for node in nodes
            for address in node.status.addresses
            if address.type == "InternalIP"
        ]

    def inside(self) -> str:
        """Return where clients in pods connect to first."""
        return f"{self.name}-bootstrap.{self.namespace}.svc:9092"


def _broker_pod(pod: Any) -> BrokerPod:
    statuses = [one for one in pod.status.container_statuses or () if one.name == CONTAINER]
    running = [one for one in statuses if one.state.running is not None]
    conditions = {one.type: one.status for one in pod.status.conditions or ()}
    return BrokerPod(
        broker_id=int(pod.metadata.labels["apps.kubernetes.io/pod-index"]),
        name=pod.metadata.name,
        uid=pod.metadata.uid,
        node=pod.spec.node_name or "",
        ip=pod.status.pod_ip or "",
        ready=conditions.get("Ready") == "True" and pod.metadata.deletion_timestamp is None,
        container_id=running[0].container_id.rpartition("/")[2] if running else "",
        restarts=sum(one.restart_count for one in statuses),
        revision=pod.metadata.labels.get("controller-revision-hash", ""),
    )
