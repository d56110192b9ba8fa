"""Three-broker clusters under test: how to start them, and how to stop, kill and bring back one broker.

Callers: `benchmarks.replication` and its experiments. Strandline is one `strandline dev --brokers 3`, whose supervisor
(with the controller in it) starts an ended broker again. Apache Kafka is three brokers and a separate controller, so that
brokers compare with brokers; a killed broker is started again at once, as Strandline's supervisor does.
"""

from __future__ import annotations

import os
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks import processes
from benchmarks.systems import HOST, BrokerFailedError, Kafka, Strandline, free_port, new_cluster_id

BROKERS = 3
_CONTROLLER_ID = 100
_BACK_TIMEOUT_S = 90.0
_POLL_S = 0.005
# Kafka's own defaults, which the properties of its distribution lower for a single node.
_KAFKA_REPLICATED = {
    "offsets.topic.replication.factor": "3",
    "share.coordinator.state.topic.replication.factor": "3",
    "share.coordinator.state.topic.min.isr": "2",
    "transaction.state.log.replication.factor": "3",
    "transaction.state.log.min.isr": "2",
    "default.replication.factor": "3",
}


class Cluster(ABC):
    """Three brokers, numbered 0 to 2, on this machine. Only processes that it started are ever signalled."""

    label: str
    """What the table calls it."""

    @property
    def bootstrap(self) -> str:
        """`host:port,...` for clients."""
        return ",".join(f"{HOST}:{self.port(broker)}" for broker in range(BROKERS))

    @abstractmethod
    def port(self, broker: int) -> int:
        """Kafka port of a broker."""

    @abstractmethod
    def start(self) -> None:
        """Prepare and start everything, and wait until every broker answers. Raises BrokerFailedError."""

    @abstractmethod
    def discard(self) -> None:
        """End all processes at once: their data is not needed any more."""

    @abstractmethod
    def pid_of(self, broker: int) -> int | None:
        """Return the process id of a broker, None while it is down."""

    @abstractmethod
    def controller_pids(self) -> list[int]:
        """Return every process that is not a broker's: the controller, and what supervises the brokers."""

    @abstractmethod
    def revive(self, broker: int) -> None:
        """Start a broker again that has ended, unless something else does that."""

    @abstractmethod
    def log_directory(self, broker: int, topic: str, partition: int) -> Path:
        """Folder with the segments of one replica, in Kafka's formats."""

    @abstractmethod
    def tail(self) -> str:
        """Return the end of what the processes printed."""

    def pids_of(self, broker: int) -> list[int]:
        """Return a broker and its descendants. Raises BrokerFailedError: it is down."""
        pid = self.pid_of(broker)
        if pid is None:
            raise BrokerFailedError(f"broker {broker} of {self.label} is down: {self.tail()}")
        return processes.tree(pid)

    def signal(self, broker: int, number: signal.Signals) -> int:
        """Send a signal to a broker's process and return its id. Raises BrokerFailedError: it is down."""
        pid = self.pids_of(broker)[0]
        os.kill(pid, number)
        return pid

    def await_another_process(self, broker: int, former: int) -> None:
        """Wait until the broker runs as another process than `former`. Raises BrokerFailedError."""
        deadline = time.monotonic() + _BACK_TIMEOUT_S
        while (pid := self.pid_of(broker)) is None or pid == former:
            if time.monotonic() > deadline:
                raise BrokerFailedError(f"broker {broker} of {self.label} did not come back: {self.tail()}")
            time.sleep(_POLL_S)


class StrandlineCluster(Cluster):
    """`strandline dev --brokers 3`."""

    def __init__(
        self, directory: Path, label: str, flush: str, config: Mapping[str, str] | None = None
    ) -> None:
        self.label = label
        self._dev = Strandline(directory, flush, config, brokers=BROKERS)

    def port(self, broker: int) -> int:
        """Kafka port of a broker."""
        return self._dev.port + broker

    def start(self) -> None:
        """Start the supervisor, which starts the brokers, and wait for its ready line."""
        self._dev.prepare()
        self._dev.start()

    def discard(self) -> None:
        """End supervisor and brokers."""
        self._dev.discard()

    def pid_of(self, broker: int) -> int | None:
        """Return what the pid file says."""
        self._dev.check()
        return self._dev.pid_of(broker)

    def controller_pids(self) -> list[int]:
        """Return the supervisor, which is also the controller."""
        return self._dev.supervisor_pids()

    def revive(self, broker: int) -> None:
        """Do nothing: the supervisor starts it again."""

    def log_directory(self, broker: int, topic: str, partition: int) -> Path:
        """Folder with the segments of one replica."""
        return self._dev.log_directory(topic, partition, broker=broker)

    def tail(self) -> str:
        """Return the end of what supervisor and brokers printed."""
        return self._dev.tail()


class _KafkaNode(Kafka):
    """A broker or the controller of a Kafka cluster, each a JVM of its own."""

    def __init__(self, directory: Path, label: str, config: Mapping[str, str], node_id: int) -> None:
        super().__init__(directory, f"{label} node {node_id}", config)
        self.port = free_port()
        self._node_id = node_id

    def prepare_as(self, role: str, controller_port: int, cluster_id: str) -> None:
        """Write properties and format the storage. `role`: broker or controller."""
        listener = "CONTROLLER" if role == "controller" else "PLAINTEXT"
        own = _KAFKA_REPLICATED | {
            "process.roles": role,
            "node.id": str(self._node_id),
            "listeners": f"{listener}://{HOST}:{self.port}",
            "advertised.listeners": f"{listener}://{HOST}:{self.port}",
            "controller.quorum.bootstrap.servers": f"{HOST}:{controller_port}",
        }
        self.format(own, cluster_id, *(["--standalone"] if role == "controller" else []))

    def pid(self) -> int | None:
        """Return the process id, None when it has ended."""
        if self._process is None or self._process.poll() is not None:
            return None
        return self._process.pid


class KafkaCluster(Cluster):
    """Apache Kafka in KRaft mode: one controller, three brokers."""

    def __init__(self, directory: Path, label: str, config: Mapping[str, str] | None = None) -> None:
        self.label = label
        settings = dict(config or {})
        self._controller = _KafkaNode(directory / "controller", label, settings, _CONTROLLER_ID)
        self._brokers = [
            _KafkaNode(directory / f"broker-{broker}", label, settings, broker) for broker in range(BROKERS)
        ]

    def port(self, broker: int) -> int:
        """Kafka port of a broker."""
        return self._brokers[broker].port

    def start(self) -> None:
        """Format and start the controller, then the brokers."""
        cluster_id = new_cluster_id()
        nodes = [(self._controller, "controller"), *((node, "broker") for node in self._brokers)]
        with ThreadPoolExecutor() as pool:
            for prepared in [
                pool.submit(node.prepare_as, role, self._controller.port, cluster_id) for node, role in nodes
            ]:
                prepared.result()
        self._controller.start()
        for node in self._brokers:
            node.exec()
        for node in self._brokers:
            node.await_answers()

    def discard(self) -> None:
        """End all nodes."""
        for node in (*self._brokers, self._controller):
            node.discard()

    def pid_of(self, broker: int) -> int | None:
        """Return the id of the JVM."""
        self._controller.check()
        return self._brokers[broker].pid()

    def controller_pids(self) -> list[int]:
        """Return the controller's JVM."""
        return processes.tree(self._controller.main_pid)

    def revive(self, broker: int) -> None:
        """Wait for the end of the process and start the next one."""
        self._brokers[broker].wait_for_end()
        self._brokers[broker].exec()

    def log_directory(self, broker: int, topic: str, partition: int) -> Path:
        """Folder with the segments of one replica."""
        return self._brokers[broker].log_directory(topic, partition)

    def tail(self) -> str:
        """Return the end of what the nodes printed."""
        return "\n".join(f"--- {node.label}\n{node.tail()}" for node in (self._controller, *self._brokers))
