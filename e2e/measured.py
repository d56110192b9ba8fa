"""Seconds that a run measured: printed at its end, and kept in a file for the documentation (`e2e.outputs`)."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

# In the order of the documentation; `MEASURES` is all that a test may note.
MEASURES = {
    "first-ack": "`kubectl apply` of Cluster and Topic to the first acknowledged record",
    "ready": "`kubectl apply` to all brokers ready",
    "applied-again": "A Cluster deleted (volumes kept) and applied again, until all brokers are ready",
    "kill": "A broker's container killed, until its partitions are written again",
    "delete-pod": "A broker's pod deleted, likewise",
    "force-delete": "A broker's pod deleted without a grace period, likewise",
    "node-off": "A node powered off, likewise",
    "operator-restart": "The operator's pod deleted under load: longest gap of a partition",
    "operator-down": "The operator away for two minutes under load: longest gap",
    "api-down": "The API server away for two minutes under load, a broker restarted cleanly meanwhile: longest gap",
    "rolling-update": "`kubectl rollout restart`, three brokers restarted one by one under load: longest gap",
    "rolling-update-duration": "That rolling update, from its start to its end",
    "tiering-settled": "48 MB written to a Cluster with a bucket, until volumes keep the tail only",
    "tiering-read-back": "All of it read back from the beginning, most of it from the bucket",
    "restored": "A Cluster lost but for its bucket (24 MB): `strandline tier restore`",
    "restored-ready": "The restored Cluster applied, until all brokers are ready",
}
DATA = {
    "outside": "Real data, clients outside the cluster",
    "in a pod": "Real data, clients in a pod",
}


@dataclass(frozen=True, slots=True)
class Measurement:
    """One measured time; `load` is the machine's average over a minute when it was noted, None if that is not known."""

    seconds: float
    remark: str
    load: float | None


class Measured:
    """What was measured so far. A run of some tests keeps what earlier runs found of the others."""

    def __init__(self, path: Path) -> None:
        self._path = path
        kept = json.loads(path.read_text()) if path.exists() else {"times": {}, "data": {}}
        self.times = {name: Measurement(**time) for name, time in kept["times"].items()}
        self.data: dict[str, list[str]] = kept["data"]
        self.noted: list[str] = []

    def note(self, measure: str, seconds: float, remark: str = "") -> None:
        """Keep a measured time."""
        assert measure in MEASURES
        load = round(os.getloadavg()[0], 1)
        self.times[measure] = Measurement(round(seconds, 2), remark, load)
        self.noted.append(f"{seconds:8.2f} s  {MEASURES[measure]} ({remark or '-'}; load {load})")
        self._keep()

    def came_back(self, where: str, lines: list[str]) -> None:
        """Keep what the program that compares real data printed."""
        assert where in DATA
        self.data[where] = lines
        self.noted += [f"            {where}: {line}" for line in lines]
        self._keep()

    def _keep(self) -> None:
        kept = {"times": {name: asdict(time) for name, time in self.times.items()}, "data": self.data}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text(json.dumps(kept, indent=2) + "\n")
