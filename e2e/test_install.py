"""Helm, two YAML files, and clients that know nothing of Kubernetes: real data there and back, every byte compared."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest
from examples.real_data import find_source

from e2e.demo import Demo
from e2e.environment import ROOT
from e2e.installation import copy_to_client, in_client
from e2e.kube import Kube, condition, is_ready
from e2e.measured import Measured

pytestmark = pytest.mark.e2e

PROGRAM = ROOT / "examples" / "real_data.py"
EQUAL = "every byte came back"
RECORDS = int(os.environ.get("E2E_RECORDS", "20000"))
# With the image on the nodes.
FIRST_ACK_S = 15.0


def test_two_files_give_a_cluster_that_takes_records(demo: Demo, kube: Kube, measured: Measured) -> None:
    topic = kube.custom(demo.namespace, "topics", "hello")
    assert is_ready(demo.cluster())
    assert is_ready(topic)
    assert condition(topic, "Stalled")["status"] == "False"
    assert ("BrokersStarted", "started 3 brokers as StatefulSet demo-broker") in kube.events(
        demo.namespace, demo.name
    )
    assert measured.times["first-ack"].seconds < FIRST_ACK_S


def test_clients_outside_the_cluster_get_their_data_back(demo: Demo, measured: Measured) -> None:
    done = subprocess.run(
        [
            sys.executable,
            str(PROGRAM),
            "--bootstrap",
            demo.outside(),
            "--replicas",
            "3",
            "--limit",
            str(RECORDS),
        ],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert EQUAL in done.stdout
    measured.came_back("outside", _figures(done.stdout))


def test_clients_in_a_pod_get_their_data_back(
    demo: Demo, kube: Kube, measured: Measured, tmp_path: Path
) -> None:
    index = tmp_path / "Packages.gz"
    source = find_source(None)
    assert source is not None, "this machine has no package index: apt-get update"
    with gzip.open(index, "wb", compresslevel=1) as file:
        file.writelines(stanza + b"\n" for stanza in islice(source.stanzas(), RECORDS))
    for path in (PROGRAM, index):
        copy_to_client(kube, demo.namespace, path)
    shown = in_client(
        kube, demo.namespace, "python3", f"/data/{PROGRAM.name}", "--file", f"/data/{index.name}",
        "--bootstrap", demo.inside(), "--replicas", "3",
    )  # fmt: skip
    assert EQUAL in shown
    measured.came_back("in a pod", _figures(shown))


def _figures(shown: str) -> list[str]:
    return [line.strip() for line in shown.splitlines() if "records" in line]
