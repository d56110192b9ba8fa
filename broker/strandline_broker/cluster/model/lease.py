"""BrokerLease: what a broker says about itself, in a `coordination.k8s.io/v1` Lease.

Written by the broker alone (`strandline_broker.cluster.lease_keeper`). `spec.holderIdentity` is the broker's
incarnation, new at every start; what Leases have no field for stands in annotations. An empty holder is the
usual sign that the holder let go: the broker stopped and said so.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, NamedTuple

from .kinds import GROUP, LABEL_CLUSTER, LEASE, Object, new_object
from .names import lease_name
from .storage_report import NOTHING_TO_REPORT, StorageReport

ANNOTATION_BROKER_ID: Final = f"{GROUP}/broker-id"
ANNOTATION_GENERATION: Final = f"{GROUP}/log-generation"
ANNOTATION_LISTENERS: Final = f"{GROUP}/listeners"
ANNOTATION_RACK: Final = f"{GROUP}/rack"
ANNOTATION_STATE: Final = f"{GROUP}/state"
ANNOTATION_HTTP: Final = f"{GROUP}/http"
ANNOTATION_WRITABLE: Final = f"{GROUP}/writable"
ANNOTATION_STORAGE: Final = f"{GROUP}/storage"


class BrokerPhase(StrEnum):
    """Life of a broker, as its Lease says.

    starting ──recovered its logs──▶ running ──SIGTERM──▶ draining ──leads nothing any more──▶ (Lease let go)
    """

    STARTING = "starting"
    RUNNING = "running"
    DRAINING = "draining"


class Endpoint(NamedTuple):
    """A host name or address, and a TCP port."""

    host: str
    port: int


class BrokerIdentity(NamedTuple):
    """What decisions about partitions need to know of a broker that lives.

    `draining`: the others are to do without it, because it is about to stop or cannot write to its disk (ADR 0010).
    """

    broker_id: int
    generation: int
    incarnation: str
    rack: str | None = None
    draining: bool = False


@dataclass(frozen=True, slots=True)
class BrokerLease:
    """A broker's Lease. `generation` is the log generation (design section 3.2), in [1, 2**53).

    `writable` is False while the broker cannot write to its disk. `storage` is for people (`storage_report`).
    """

    broker_id: int
    incarnation: str
    generation: int
    listeners: dict[str, Endpoint]
    rack: str | None = None
    state: BrokerPhase = BrokerPhase.STARTING
    http: Endpoint | None = None
    writable: bool = True
    storage: StorageReport = NOTHING_TO_REPORT
    cluster: str = ""
    lease_duration_ms: int = 10_000
    # RFC 3339 with microseconds, as Kubernetes' MicroTime. Only that they change matters, never what they
    # say.
    acquire_time: str = ""
    renew_time: str = ""
    transitions: int = 0
    uid: str = ""
    resource_version: str = ""

    @property
    def name(self) -> str:
        """Name of the Lease object."""
        return lease_name(self.cluster, self.broker_id)

    @property
    def held(self) -> bool:
        """Whether a broker holds it; False after a broker stopped and let go."""
        return self.incarnation != ""

    @property
    def identity(self) -> BrokerIdentity:
        """The broker as the transitions want it."""
        return BrokerIdentity(
            self.broker_id,
            self.generation,
            self.incarnation,
            self.rack,
            self.state is BrokerPhase.DRAINING or not self.writable,
        )

    @classmethod
    def from_object(cls, obj: Object) -> BrokerLease:
        """Read a stored Lease. Raises KeyError, TypeError or ValueError when it is not one of a broker."""
        metadata, spec = obj["metadata"], obj["spec"]
        annotations = metadata.get("annotations") or {}
        listeners = json.loads(annotations.get(ANNOTATION_LISTENERS, "{}"))
        http = annotations.get(ANNOTATION_HTTP)
        return cls(
            broker_id=int(annotations[ANNOTATION_BROKER_ID]),
            incarnation=spec.get("holderIdentity") or "",
            generation=int(annotations[ANNOTATION_GENERATION]),
            listeners={name: Endpoint(entry["host"], entry["port"]) for name, entry in listeners.items()},
            rack=annotations.get(ANNOTATION_RACK) or None,
            state=BrokerPhase(annotations[ANNOTATION_STATE]),
            http=_parse_endpoint(http) if http else None,
            writable=annotations.get(ANNOTATION_WRITABLE) != "false",
            storage=StorageReport.parse(annotations.get(ANNOTATION_STORAGE) or ""),
            cluster=(metadata.get("labels") or {}).get(LABEL_CLUSTER, ""),
            lease_duration_ms=1000 * spec.get("leaseDurationSeconds", 10),
            acquire_time=spec.get("acquireTime") or "",
            renew_time=spec.get("renewTime") or "",
            transitions=spec.get("leaseTransitions", 0),
            uid=metadata.get("uid", ""),
            resource_version=metadata.get("resourceVersion", ""),
        )

    def annotations_object(self) -> dict[str, str]:
        """Return the annotations that carry the broker's details.

        All of them, so that an update leaves no old one.
        """
        listeners = {name: {"host": host, "port": port} for name, (host, port) in self.listeners.items()}
        return {
            ANNOTATION_BROKER_ID: str(self.broker_id),
            ANNOTATION_GENERATION: str(self.generation),
            ANNOTATION_LISTENERS: json.dumps(listeners, sort_keys=True),
            ANNOTATION_STATE: self.state.value,
            ANNOTATION_RACK: self.rack or "",
            ANNOTATION_HTTP: f"{self.http.host}:{self.http.port}" if self.http is not None else "",
            ANNOTATION_WRITABLE: "true" if self.writable else "false",
            ANNOTATION_STORAGE: self.storage.to_annotation(),
        }

    def spec_object(self) -> dict[str, Any]:
        """Return the JSON shape of `spec`. The duration is rounded up to whole seconds, as Leases have it."""
        return {
            "holderIdentity": self.incarnation,
            "leaseDurationSeconds": max(1, -(-self.lease_duration_ms // 1000)),
            "acquireTime": self.acquire_time,
            "renewTime": self.renew_time,
            "leaseTransitions": self.transitions,
        }

    def to_object(self) -> Object:
        """Return the object for `ClusterStore.create`.

        UID and version, where known, are kept for caches on disk.
        """
        obj = new_object(
            LEASE,
            self.name,
            self.spec_object(),
            labels={LABEL_CLUSTER: self.cluster} if self.cluster else None,
            annotations=self.annotations_object(),
        )
        if self.uid:
            obj["metadata"]["uid"] = self.uid
            obj["metadata"]["resourceVersion"] = self.resource_version
        return obj


def _parse_endpoint(text: str) -> Endpoint:
    host, _, port = text.rpartition(":")
    return Endpoint(host, int(port))
