"""The brokers under test, each as a process of its own: how to start, find, restart and stop one.

Callers: the benchmark rows, `profile_hot`, `tests/foreign`. Strandline is started through its public command
line only (`strandline dev`), Apache Kafka as one KRaft node in combined mode with the settings it ships with.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from abc import ABC, abstractmethod
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from benchmarks import processes
from benchmarks.kafka_jars import ensure_jars, java_command

HOST = "127.0.0.1"
_READY_TIMEOUT_S = 120.0
_STOP_TIMEOUT_S = 90.0
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)

# The heap and collector of Kafka's own kafka-server-start.sh and kafka-run-class.sh.
_KAFKA_JVM = (
    "-Xmx1G",
    "-Xms1G",
    "-server",
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:InitiatingHeapOccupancyPercent=35",
    "-XX:+ExplicitGCInvokesConcurrent",
    "-Djava.awt.headless=true",
)
# As in the config/server.properties of the distribution; what is not named has Kafka's default.
_KAFKA_PROPERTIES = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "inter.broker.listener.name": "PLAINTEXT",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
    "num.network.threads": "3",
    "num.io.threads": "8",
    "socket.send.buffer.bytes": "102400",
    "socket.receive.buffer.bytes": "102400",
    "socket.request.max.bytes": "104857600",
    "num.partitions": "1",
    "num.recovery.threads.per.data.dir": "1",
    "offsets.topic.replication.factor": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "log.retention.hours": "168",
    "log.segment.bytes": "1073741824",
    "log.retention.check.interval.ms": "300000",
}


class BrokerFailedError(Exception):
    """A broker did not start, did not stop, or went away; the message ends with its last output."""


def free_port(*, also_above: int = 0, count: int = 1) -> int:
    """Return the first of `count` TCP ports nobody listens on; with `also_above` those so much higher are free too."""
    while True:
        with ExitStack() as held:
            first = held.enter_context(socket.socket())
            first.bind((HOST, 0))
            port: int = first.getsockname()[1]
            wanted = [*range(port + 1, port + count)]
            if also_above:
                wanted += range(port + also_above, port + also_above + count)
            try:
                for other in wanted:
                    held.enter_context(socket.socket()).bind((HOST, other))
            except (OSError, OverflowError):
                continue
            return port


class Broker(ABC):
    """One single-node cluster. `start` may be called again after `stop`: the data stays."""

    label: str
    """What the table calls it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._output = directory / "output.txt"
        directory.mkdir(parents=True, exist_ok=True)

    @property
    def bootstrap(self) -> str:
        """`host:port` for clients."""
        return f"{HOST}:{self.port}"

    @property
    def main_pid(self) -> int:
        """The process that was started: the broker itself, or what supervises it."""
        assert self._process is not None, "not started"
        return self._process.pid

    @abstractmethod
    def prepare(self) -> None:
        """Do what comes once before the first start of a fresh directory, and is not start-up time."""

    @abstractmethod
    def _command(self) -> list[str]:
        """Return the command line of the process to start."""

    @abstractmethod
    def broker_pids(self) -> list[int]:
        """Return the broker process and its descendants, without what supervises it."""

    @abstractmethod
    def log_directory(self, topic: str, partition: int) -> Path:
        """Folder with the segments of a partition, in Kafka's formats."""

    def supervisor_pids(self) -> list[int]:
        """Return every process of the system that is not the broker."""
        brokers = set(self.broker_pids())
        return [pid for pid in processes.tree(self.main_pid) if pid not in brokers]

    def exec(self) -> float:
        """Start the process and return at once: the time.perf_counter() just before."""
        assert self._process is None, "already started"
        with self._output.open("ab") as output:
            before = time.perf_counter()
            self._process = subprocess.Popen(
                self._command(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        return before

    def start(self) -> None:
        """Start it and wait until it answers.

        Raises:
            BrokerFailedError: it ended, or took longer than two minutes.

        """
        self.exec()
        self.await_answers()

    def await_answers(self) -> None:
        """Wait until it answers, after `exec`. Raises as `start` does."""
        deadline = time.monotonic() + _READY_TIMEOUT_S
        while not self._answers():
            self.check()
            if time.monotonic() > deadline:
                self.stop()
                raise BrokerFailedError(f"{self.label} not ready after {_READY_TIMEOUT_S} s: {self.tail()}")
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            socket.create_connection((HOST, self.port), timeout=1).close()
        except OSError:
            return False
        return True

    def check(self) -> None:
        """Assert that the process runs.

        Raises:
            BrokerFailedError: it has ended.

        """
        assert self._process is not None, "not started"
        if (status := self._process.poll()) is not None:
            raise BrokerFailedError(f"{self.label} exited with {status}: {self.tail()}")

    def wait_for_end(self) -> None:
        """Wait until the process, which somebody has told to end, has ended; then it can be started again.

        Raises:
            BrokerFailedError: it still runs after a minute and a half.

        """
        assert self._process is not None, "not started"
        try:
            self._process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired as stuck:
            raise BrokerFailedError(f"{self.label} did not end: {self.tail()}") from stuck
        self._process = None

    def discard(self) -> None:
        """End all its processes at once, stopped or not: the data is not needed any more."""
        process, self._process = self._process, None
        if process is None:
            return
        # Parents first: a supervisor that is gone starts nothing again.
        members = processes.tree(process.pid) if process.poll() is None else []
        for pid in members:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()

    def stop(self) -> int:
        """Stop it gracefully (SIGTERM) and return its exit status; kill it when that takes too long."""
        process, self._process = self._process, None
        if process is None:
            return 0
        members = processes.tree(process.pid) if process.poll() is None else []
        process.send_signal(signal.SIGTERM)
        try:
            return process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired as stuck:
            for pid in members:
                if processes.exists(pid):
                    os.kill(pid, signal.SIGKILL)
            process.wait()
            raise BrokerFailedError(
                f"{self.label} did not stop in {_STOP_TIMEOUT_S} s: {self.tail()}"
            ) from stuck

    def tail(self) -> str:
        """Return the end of what the process printed, for messages."""
        return self._output.read_text(errors="replace")[-3000:] if self._output.exists() else ""


class Strandline(Broker):
    """`strandline dev` with one broker, or more: then `port` is that of broker 0, and broker i has port + i."""

    def __init__(
        self,
        directory: Path,
        flush: str = "Fsync",
        config: Mapping[str, str] | None = None,
        *,
        brokers: int = 1,
        options: Sequence[str] = (),
    ) -> None:
        """`options`: more arguments of `strandline dev`."""
        super().__init__(directory)
        self.label = f"Strandline {flush}"
        self.brokers = brokers
        self._flush = flush
        self._options = list(options)
        # Kafka has no bucket here either, so no topic is tiered unless it says so: what is compared is the same work.
        self._config = {"remote.storage.enable": "false", **(config or {})}
        self._data = directory / "data"

    def prepare(self) -> None:
        """Choose the ports (HTTP is 1,000 above Kafka's)."""
        self.port = free_port(also_above=1000, count=self.brokers)

    def _command(self) -> list[str]:
        # fmt: off
        command = [strandline_executable(), "dev", "--brokers", str(self.brokers), "--host", HOST, "--port", str(self.port),
                   "--data-dir", str(self._data), "--flush", self._flush, "--plain", *self._options]
        # fmt: on
        for key, value in self._config.items():
            command += ["--config", f"{key}={value}"]
        return command

    def _answers(self) -> bool:
        return "ready bootstrap=" in self.tail() and super()._answers()

    def exec(self) -> float:
        """Start the supervisor, which starts the broker."""
        self._output.write_bytes(b"")  # the ready line of an earlier start says nothing about this one
        return super().exec()

    def broker_pids(self) -> list[int]:
        """Return the brokers that `strandline dev` started, and their descendants."""
        return [pid for broker in range(self.brokers) for pid in self.pids_of(broker)]

    def pids_of(self, broker: int) -> list[int]:
        """Return one broker and its descendants."""
        pid = self.pid_of(broker)
        if pid is None:
            raise BrokerFailedError(f"broker {broker} does not run: {self.tail()}")
        return processes.tree(pid)

    def pid_of(self, broker: int) -> int | None:
        """Return the process id of one broker, None while it is down."""
        try:
            return int((self._data / f"broker-{broker}" / "pid").read_text())
        except (FileNotFoundError, ValueError):
            return None

    def log_directory(self, topic: str, partition: int, *, broker: int = 0) -> Path:
        """Folder with the segments of a partition."""
        return _find_one(self._data / f"broker-{broker}", f"{topic}-{partition}")

    def tail(self) -> str:
        """Return the end of the supervisor's and of the brokers' output."""
        logs = [
            f"--- {path}\n" + path.read_text(errors="replace")[-3000:]
            for path in sorted(self._data.glob("broker-*/broker.log"))
        ]
        return "\n".join([super().tail(), *logs])


class Kafka(Broker):
    """Apache Kafka: one KRaft node in combined mode."""

    def __init__(self, directory: Path, name: str = "Kafka", config: Mapping[str, str] | None = None) -> None:
        super().__init__(directory)
        self.label = name
        self._config = dict(config or {})
        self._logs = directory / "data"
        self._properties = directory / "server.properties"

    def prepare(self) -> None:
        """Write the properties and format the storage, as Kafka wants it before the first start."""
        self.port = free_port()
        controller = free_port()
        self.format(
            {
                "listeners": f"PLAINTEXT://{HOST}:{self.port},CONTROLLER://{HOST}:{controller}",
                "advertised.listeners": f"PLAINTEXT://{HOST}:{self.port},CONTROLLER://{HOST}:{controller}",
                "controller.quorum.bootstrap.servers": f"{HOST}:{controller}",
            },
            new_cluster_id(),
            "--standalone",
        )

    def format(self, own: Mapping[str, str], cluster_id: str, *flags: str) -> None:
        """Write the properties of this node, those given on top, and format its storage for a cluster."""
        ensure_jars()
        properties = _KAFKA_PROPERTIES | {"log.dirs": str(self._logs)} | dict(own) | self._config
        self._properties.write_text("".join(f"{key}={value}\n" for key, value in properties.items()))
        # fmt: off
        run_to_end(java_command("kafka.tools.StorageTool",
                                ["format", "-t", cluster_id, "-c", str(self._properties), *flags]))
        # fmt: on

    def _command(self) -> list[str]:
        return java_command("kafka.Kafka", [str(self._properties)], jvm=_KAFKA_JVM)

    def broker_pids(self) -> list[int]:
        """Return the JVM: broker and controller in one process."""
        return processes.tree(self.main_pid)

    def log_directory(self, topic: str, partition: int) -> Path:
        """Folder with the segments of a partition."""
        return self._logs / f"{topic}-{partition}"


def new_cluster_id() -> str:
    """Return a new cluster id in Kafka's form."""
    return urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")


def _stop_with_parent() -> None:
    """Ask the kernel to stop this process when the one that started it ends, however it ends (prctl(2))."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def strandline_executable() -> str:
    """Return the `strandline` command of this interpreter's environment, else the one on the PATH.

    Raises:
        BrokerFailedError: it is not installed.

    """
    beside = Path(sys.executable).with_name("strandline")
    found = str(beside) if beside.exists() else shutil.which("strandline")
    if found is None:
        raise BrokerFailedError("there is no `strandline` command: install the repository (pip install -e .)")
    return found


def run_to_end(command: Sequence[str], *, timeout_s: float = 120.0, stdin: bytes = b"") -> bytes:
    """Run a program and return what it printed on standard output.

    Raises:
        BrokerFailedError: it failed; the message holds its output.

    """
    done = subprocess.run(command, input=stdin, capture_output=True, timeout=timeout_s, check=False)
    if done.returncode != 0:
        shown = (done.stdout + done.stderr).decode(errors="replace")[-4000:]
        raise BrokerFailedError(f"{' '.join(command[-6:])} exited with {done.returncode}: {shown}")
    return done.stdout


def _find_one(directory: Path, name: str) -> Path:
    found = [path for path in directory.rglob(name) if path.is_dir()]
    if len(found) != 1:
        raise BrokerFailedError(f"expected one folder {name} below {directory}, found {found}")
    return found[0]
