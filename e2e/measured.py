"""Seconds that a run measured: printed at its end, and kept in a file for the documentation (`e2e.outputs`)."""

from __future__ import annotations

import json
from pathlib import Path

# In the order of the documentation; `MEASURES` is all that a test may note.
MEASURES = {
    "first-ack": "`kubectl apply` of Cluster and Topic to the first acknowledged record",
    "ready": "`kubectl apply` to all brokers ready",
    "listener": "A NodePort listener added: rolling update of three brokers, longest gap of a partition",
    "kill": "A broker's container killed, until its partitions are written again",
    "delete-pod": "A broker's pod deleted, likewise",
    "force-delete": "A broker's pod deleted without a grace period, likewise",
    "node-off": "A node powered off, likewise",
    "operator-restart": "The operator's pod deleted under load: longest gap of a partition",
    "operator-down": "The operator away for two minutes under load: longest gap",
    "api-down": "The API server away for two minutes under load, a broker restarted cleanly meanwhile: longest gap",
    "rolling-update": "A new image, three brokers restarted one by one under load: longest gap",
    "rolling-update-duration": "That rolling update, from its start to its end",
}


class Measured:
    """What was measured so far. A run of some tests keeps what earlier runs found of the others."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.seconds: dict[str, float] = json.loads(path.read_text()) if path.exists() else {}
        self.noted: list[str] = []

    def note(self, measure: str, seconds: float, remark: str = "") -> None:
        """Keep a measured time."""
        assert measure in MEASURES
        self.seconds[measure] = round(seconds, 2)
        self.noted.append(f"{seconds:8.2f} s  {MEASURES[measure]}" + (f" ({remark})" if remark else ""))
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text(json.dumps(self.seconds, indent=2) + "\n")

    def remark(self, text: str) -> None:
        """Say something at the end of the run that is no time."""
        self.noted.append(f"            {text}")
