"""`strandline dev` for the plugins: the brokers that foreign suites ask for.

Plugins run in the suite's own environment, where nothing of Strandline is installed and `tests` is somebody else's
package: only the standard library is imported here, and our helper by its path.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

# Where the configuration files that suites give Kafka, and Kafka's own server.properties, differ from its defaults.
_SAMPLE_SETTINGS = {"group_initial_rebalance_delay_ms": "0"}
_NUMBERS = itertools.count(1)
# Brokers of every cluster, and replicas of topics whose makers do not say how many they want.
FACTOR = int(os.environ.get("CONFORMANCE_FACTOR", "1"))
_REPLICATED = {"default.replication.factor": str(FACTOR), "min.insync.replicas": "2"}


def _load(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


_dev_cluster = _load(Path(__file__).resolve().parents[2] / "crash" / "dev_cluster.py")


class Broker:
    """A cluster: `listeners` are further ones (name: port of the first broker), `users` the users of SASL listeners.

    It has one broker, at factor 3 three with ports that follow each other. Settings of a suite win over those of ours.
    """

    def __init__(
        self,
        *,
        directory: Path | None = None,
        port: int = 0,
        listeners: Mapping[str, int] | None = None,
        settings: Mapping[str, str] | None = None,
        users: Mapping[str, str] | None = None,
    ) -> None:
        parent = directory or Path(os.environ["CONFORMANCE_RUN"])
        self.directory = parent / f"cluster-{next(_NUMBERS)}"
        self.directory.mkdir(parents=True)
        self.users_file = self.directory / "users.json"
        config = {**_SAMPLE_SETTINGS, **(_REPLICATED if FACTOR > 1 else {}), **(settings or {})}
        if users is not None:
            self.write_users(users)
            config["sasl_users_file"] = str(self.users_file)
        options = [f"--listener={name}://127.0.0.1:{number}" for name, number in (listeners or {}).items()]
        options += [f"--config={key}={value}" for key, value in config.items()]
        self._cluster = _dev_cluster.DevCluster(
            self.directory / "data", brokers=FACTOR, port=port, options=tuple(options)
        ).__enter__()

    def write_users(self, users: Mapping[str, str]) -> None:
        """Write the users file; brokers take it up when it changes."""
        document = {"users": {name: {"password": password} for name, password in users.items()}}
        self.users_file.write_text(json.dumps(document))
        self.users_file.chmod(0o600)

    @property
    def port(self) -> int:
        """Port of the first listener of the first broker."""
        return int(self._cluster.bootstrap.split(",")[0].rpartition(":")[2])

    @property
    def bootstrap(self) -> str:
        """Addresses of the first listener."""
        return str(self._cluster.bootstrap)

    def topic_names(self) -> list[str]:
        """Names of all topics, as the command line lists them."""
        command = [os.environ["CONFORMANCE_PROGRAM"], "topics", "-o", "json", "--data-dir"]
        done = subprocess.run([*command, str(self.directory / "data")], capture_output=True, check=True)
        topics = json.loads(done.stdout)["items"]
        return [topic["spec"].get("topicName") or topic["metadata"]["name"] for topic in topics]

    def log(self) -> str:
        """End of what the cluster said."""
        return str(self._cluster.tail())

    def stop(self) -> None:
        """Stop it; it may be stopped twice."""
        self._cluster.stop()


def make_certificates(directory: str) -> None:
    """Write an authority `ca-cert`, and a server's certificate signed by it: `server.crt` and `server.key`."""
    commands = (
        (
            "req -x509 -newkey rsa:2048 -nodes -days 1 -keyout ca-key -out ca-cert -subj /CN=authority"
            " -addext keyUsage=critical,keyCertSign,cRLSign"
        ),
        "req -newkey rsa:2048 -nodes -keyout server.key -out server.csr -subj /CN=localhost",
        "x509 -req -in server.csr -CA ca-cert -CAkey ca-key -CAcreateserial -days 1 -out server.crt",
    )
    for command in commands:
        subprocess.run(["openssl", *command.split()], cwd=directory, check=True, capture_output=True)


def free_port() -> int:
    """Return a port that nobody listens on, and as many after it as there are further brokers."""
    while True:
        with ExitStack() as stack:
            first = _bind(stack, 0)
            try:
                for further in range(1, FACTOR):
                    _bind(stack, first + further)
            except (OSError, OverflowError):  # taken, or beyond the last one
                continue
            return first


def _bind(stack: ExitStack, port: int) -> int:
    probe = stack.enter_context(socket.socket())
    probe.bind(("127.0.0.1", port))
    bound: int = probe.getsockname()[1]
    return bound
