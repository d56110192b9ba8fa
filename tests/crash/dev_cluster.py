"""`strandline dev` as a child process, for tests that kill brokers. Only processes of this tree are ever
signalled.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path
from types import TracebackType

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 60.0
_READY = re.compile(r"^ready bootstrap=(\S+)", re.MULTILINE)


class DevClusterError(Exception):
    """The cluster did not do what its contract says; the message holds the end of its output."""


class DevCluster:
    """A `strandline dev` below `data_dir`; a context manager that starts and stops it."""

    def __init__(
        self, data_dir: Path, *, brokers: int = 1, port: int = 0, options: tuple[str, ...] = ()
    ) -> None:
        self.data_dir = data_dir
        self.bootstrap = ""
        self.start_timeout_s = START_TIMEOUT_S
        self._command = [
            os.environ.get("CONFORMANCE_PROGRAM") or str(Path(sys.executable).with_name("strandline")),
            *("dev", "--brokers", str(brokers), "--port", str(port), "--plain", "--data-dir", str(data_dir)),
            *options,
        ]
        self._output: deque[str] = deque(maxlen=200)
        self._ready = threading.Event()
        self._process: subprocess.Popen[str] | None = None
        self._pump: threading.Thread | None = None

    def __enter__(self) -> DevCluster:
        self.start()
        return self

    def start(self) -> None:
        """Start the supervisor and wait until all brokers serve; also after `kill_supervisor`."""
        self._ready.clear()
        self.bootstrap = ""
        self._process = subprocess.Popen(
            self._command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
        )
        self._pump = threading.Thread(target=self._read_output, name="dev-output", daemon=True)
        self._pump.start()
        if not self._ready.wait(self.start_timeout_s) or not self.bootstrap:
            self.stop(kill=True)
            raise DevClusterError(f"no ready line within {self.start_timeout_s:.0f} s\n{self.tail()}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop(kill=kind is not None)

    def _read_output(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._output.append(line)
            found = _READY.match(line)
            if found and not self.bootstrap:
                self.bootstrap = found.group(1)
                self._ready.set()
        self._ready.set()

    def tail(self) -> str:
        """Return the end of what the supervisor and its brokers said."""
        logs = [
            f"--- {path}\n" + path.read_text(errors="replace")[-3000:]
            for path in sorted(self.data_dir.glob("broker-*/broker.log"))
        ]
        return "".join(["--- dev\n", *self._output, *logs])

    def stop(self, *, kill: bool = False) -> int:
        """Stop with SIGTERM and return the exit status; with `kill` give it only a short time."""
        process = self._process
        if process is None:
            return 0
        self._process = None
        children = [pid for pid in map(_read_pid, self.data_dir.glob("broker-*/pid")) if pid]
        children = [pid for pid in children if is_descendant(pid, process.pid)]
        process.send_signal(signal.SIGTERM)
        try:
            status = process.wait(5 if kill else STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            status = process.wait()
            for pid in children:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self._close_output(process)
        if status != 0 and not kill:
            raise DevClusterError(f"exit status {status}\n{self.tail()}")
        return status

    @property
    def supervisor_pid(self) -> int | None:
        """Process id of `strandline dev`, None while it is down."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def kill_supervisor(self) -> None:
        """End the supervisor with SIGKILL. The kernel sends its brokers SIGTERM; `start` begins the next life."""
        process = self._process
        assert process is not None
        self._process = None
        process.kill()
        process.wait()
        self._close_output(process)

    def _close_output(self, process: subprocess.Popen[str]) -> None:
        if self._pump is not None:
            self._pump.join(5)
        if process.stdout is not None:
            process.stdout.close()

    def broker_pid(self, broker: int = 0) -> int | None:
        """Return the process id of a broker that runs now, None while it is down."""
        pid = _read_pid(self.data_dir / f"broker-{broker}" / "pid")
        if pid is None or self._process is None or not is_descendant(pid, self._process.pid):
            return None
        return pid

    def wait_for_broker(
        self, broker: int = 0, *, other_than: int | None = None, timeout_s: float = 30
    ) -> int:
        """Return the process id of a broker once it runs (as another process than `other_than`)."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            pid = self.broker_pid(broker)
            if pid is not None and pid != other_than:
                return pid
            if self._process is None or self._process.poll() is not None:
                raise DevClusterError(f"the supervisor is gone\n{self.tail()}")
            time.sleep(0.01)
        raise DevClusterError(f"broker {broker} is not back after {timeout_s:.0f} s\n{self.tail()}")

    def signal_broker(self, number: signal.Signals, broker: int = 0) -> int:
        """Send a signal to a running broker and return its process id."""
        while True:
            pid = self.wait_for_broker(broker)
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue
            return pid


def _read_pid(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (FileNotFoundError, ValueError):
        return None


def is_descendant(pid: int, ancestor: int) -> bool:
    """Say whether `pid` is a live (not yet reaped) process below `ancestor`."""
    for _ in range(8):
        try:
            state, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
        except (FileNotFoundError, ProcessLookupError):
            return False
        if state in "ZX":
            return False
        pid = int(parent)
        if pid == ancestor:
            return True
        if pid <= 1:
            return False
    return False
