"""Scripts of our own over clients that publish no tests: kcat (one shell script per test) and kafkajs (Node's test runner).

They run against one cluster with a plain, a TLS and two SASL listeners; its addresses and files are in the environment.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.conformance.plugins.strandline_dev import Broker, free_port, make_certificates
from tests.conformance.reports import PASSED, Outcome, read_junit
from tests.conformance.sources import SourceMissingError, node_environment
from tests.conformance.suites import Suite

_CLIENTS: Final = Path(__file__).resolve().parent / "clients"
_USER, _PASSWORD = "alice", "alice-secret"
_SCRIPT_TIMEOUT_S: Final = 60.0


def run(suite: Suite, directory: Path) -> Mapping[str, Outcome]:
    """Run all scripts of a suite. Raises SourceMissingError when the client is not on this machine."""
    runner = {"kcat": _run_kcat, "kafkajs": _run_kafkajs}[suite.kind]
    return runner(suite, directory)


def _run_kcat(_suite: Suite, directory: Path) -> Mapping[str, Outcome]:
    if shutil.which("kcat") is None:
        raise SourceMissingError("needs kcat")
    outcomes = {}
    with _cluster(directory) as environment, (directory / "output.txt").open("w") as output:
        for script in sorted((_CLIENTS / "kcat").glob("[a-z]*.sh")):
            if script.name == "lib.sh":
                continue
            started = time.monotonic()
            command = ["bash", "-eu", "-o", "pipefail", str(script)]
            try:
                # fmt: off
                done = subprocess.run(command, env=environment, cwd=directory, capture_output=True, text=True,
                                      errors="replace", timeout=_SCRIPT_TIMEOUT_S, check=False)
                # fmt: on
                said, code = done.stdout + done.stderr, done.returncode
            except subprocess.TimeoutExpired as slow:
                said, code = f"{slow}", -1
            output.write(f"== {script.name}: {code}\n{said}\n")
            last = (said.strip().splitlines() or [""])[-1]
            name = f"kcat::{script.stem}"
            status, message = (PASSED, "") if code == 0 else ("failed", last)
            outcomes[name] = Outcome(name, status, time.monotonic() - started, message)
    return outcomes


def _run_kafkajs(suite: Suite, directory: Path) -> Mapping[str, Outcome]:
    modules = node_environment(suite)
    report = directory / "report.xml"
    files = sorted(str(path) for path in (_CLIENTS / "kafkajs").glob("*.test.mjs"))
    # fmt: off
    command = ["node", "--test", "--test-concurrency=1", "--test-reporter=junit",
               f"--test-reporter-destination={report}", *files]
    # fmt: on
    with _cluster(directory) as environment, (directory / "output.txt").open("w") as output:
        environment = {**environment, "CONFORMANCE_NODE": str(modules), "KAFKAJS_NO_PARTITIONER_WARNING": "1"}
        try:
            subprocess.run(
                command, env=environment, stdout=output, stderr=output, timeout=suite.timeout_s, check=False
            )
        except subprocess.TimeoutExpired:
            output.write(f"\nstopped after {suite.timeout_s:.0f} s\n")
    found = read_junit(report)
    return {f"kafkajs::{o.test.rpartition('::')[2]}": o for o in found.values()}


@contextmanager
def _cluster(directory: Path) -> Iterator[dict[str, str]]:
    certificates = directory / "certificates"
    certificates.mkdir()
    make_certificates(str(certificates))
    ports = {name: free_port() for name in ("SSL", "SASL_PLAINTEXT", "SASL_SSL")}
    os.environ.setdefault("CONFORMANCE_PROGRAM", str(Path(sys.executable).with_name("strandline")))
    broker = Broker(
        directory=directory,
        listeners=ports,
        settings={
            "ssl_certificate_file": str(certificates / "server.crt"),
            "ssl_key_file": str(certificates / "server.key"),
            "sasl_enabled_mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
        },
        users={_USER: _PASSWORD},
    )
    try:
        yield {
            **os.environ,
            "BOOTSTRAP": broker.bootstrap,
            **{f"BOOTSTRAP_{name}": f"127.0.0.1:{port}" for name, port in ports.items()},
            "CA_FILE": str(certificates / "ca-cert"),
            "SASL_USER": _USER,
            "SASL_PASSWORD": _PASSWORD,
        }
    finally:
        broker.stop()
