"""The cluster that a nemesis torments: `strandline dev` with fixed ports, so that it can be killed and started again.

Nothing here waits for a broker that is down: with several faults at once that may be what was asked for.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from tests.crash.cluster_state import Snapshot, read_state, wait_until_well
from tests.crash.dev_cluster import DevCluster
from tests.crash.volumes import Volume, wipe

HTTP_PORT_OFFSET = 1000
_FIRST_PORT, _LAST_PORT = 15_000, 30_000
_DEATH_TIMEOUT_S = 10.0


class NemesisCluster(DevCluster):
    """Several brokers below `data_dir`. With `volume_bytes` each has a small file system of its own (see `volumes`)."""

    def __init__(
        self,
        data_dir: Path,
        *,
        brokers: int = 3,
        options: tuple[str, ...] = (),
        volume_bytes: int = 0,
        port: int = 0,
    ) -> None:
        super().__init__(data_dir, brokers=brokers, port=port or free_port(brokers), options=options)
        self.brokers = brokers
        self.start_timeout_s = 180.0
        self.volumes: dict[int, Volume] = {}
        self._volume_bytes = volume_bytes

    def __enter__(self) -> NemesisCluster:
        self.data_dir.mkdir(parents=True, exist_ok=True)
        try:
            if self._volume_bytes:
                for broker in range(self.brokers):
                    image = self.data_dir / f"volume-{broker}.img"
                    self.volumes[broker] = Volume(image, self.data_path(broker), self._volume_bytes)
            self.start()
        except BaseException:
            self._clean_up()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            super().__exit__(kind, error, trace)
        finally:
            self._clean_up()

    def _clean_up(self) -> None:
        """End what outlived its supervisor, and unmount."""
        for broker in range(self.brokers):
            pid = self.any_pid(broker)
            if pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        for volume in self.volumes.values():
            volume.close()
        self.volumes.clear()

    @property
    def store_file(self) -> Path:
        """The SQLite file of the cluster store."""
        return self.data_dir / "cluster.db"

    def data_path(self, broker: int) -> Path:
        """Return the directory with a broker's logs."""
        return self.data_dir / f"broker-{broker}" / "data"

    def state(self) -> Snapshot:
        """Read the cluster store."""
        return read_state(self.store_file)

    def wait_until_well(self, timeout_s: float) -> list[str]:
        """Wait until all is well; return what is not by then."""
        return wait_until_well(self.store_file, self.brokers, timeout_s)

    def any_pid(self, broker: int) -> int | None:
        """Return the process id of a broker, also of one that outlived its supervisor; None while none runs."""
        directory = self.data_dir / f"broker-{broker}"
        try:
            pid = int((directory / "pid").read_text())
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError):
            return None
        # A zombie has no command line; another process has another one.
        return pid if f"{directory}{os.sep}".encode() in command else None

    def send(self, broker: int, number: signal.Signals) -> int | None:
        """Send a signal to a broker; return its process id, None when none runs."""
        pid = self.any_pid(broker)
        if pid is None or not send_signal(pid, number):
            return None
        return pid

    def wipe_volume(self, broker: int) -> bool:
        """Kill a broker and empty its volume before its supervisor can start it again; return False if it is down."""
        supervisor = self.supervisor_pid
        if supervisor is None:
            return False
        os.kill(supervisor, signal.SIGSTOP)
        try:
            pid = self.send(broker, signal.SIGKILL)
            if pid is None or not _wait_for_death(pid):
                return False
            wipe(self.data_path(broker))
        finally:
            os.kill(supervisor, signal.SIGCONT)
        return True


def send_signal(pid: int, number: signal.Signals) -> bool:
    """Send a signal; return False if there is no such process."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def _wait_for_death(pid: int) -> bool:
    """Wait until a process is gone or a zombie."""
    deadline = time.monotonic() + _DEATH_TIMEOUT_S
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state in "ZX":
            return True
        time.sleep(0.01)
    return False


def free_port(brokers: int) -> int:
    """Return the first of free ports for all brokers, outside of what the kernel gives to clients."""
    for port in _candidates():
        wanted = [port + i + more for i in range(brokers) for more in (0, HTTP_PORT_OFFSET)]
        with contextlib.ExitStack() as stack:
            try:
                for number in wanted:
                    probe = stack.enter_context(socket.socket())
                    probe.bind(("127.0.0.1", number))
            except OSError:
                continue
            return port
    raise AssertionError("no free ports")


def _candidates() -> Iterator[int]:
    rng = random.SystemRandom()
    for _ in range(100):
        yield rng.randrange(_FIRST_PORT, _LAST_PORT)
