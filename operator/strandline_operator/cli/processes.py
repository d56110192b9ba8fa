"""Broker processes: started without asyncio (so that they start before anything heavy is imported), watched with it.

Restarts follow a kubelet's manner with shorter delays: at once the first time, then after 0.5 s, doubling to 10 s; a
process that ran for 10 s starts the count anew.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from strandline_operator.cli.layout import DataDir

if TYPE_CHECKING:
    import asyncio

FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 10.0
STABLE_AFTER_S = 10.0
ORPHAN_PATIENCE_S = 10.0


class Restarts:
    """Decides how long to wait before the next start; times are seconds of one monotonic clock."""

    __slots__ = ("failures",)

    def __init__(self) -> None:
        self.failures = 0

    def delay_s(self, ran_s: float) -> float:
        """Return the delay after a process that ran for `ran_s` ended."""
        self.failures = 1 if ran_s >= STABLE_AFTER_S else self.failures + 1
        if self.failures == 1:
            return 0.0
        return min(LONGEST_DELAY_S, FIRST_DELAY_S * 2.0 ** min(self.failures - 2, 16))


class BrokerProcess:
    """One broker: its command line, and the process that runs it now, if any."""

    def __init__(
        self, broker_id: int, command: Sequence[str], data_dir: DataDir, environment: dict[str, str]
    ) -> None:
        self.broker_id = broker_id
        self.command = list(command)
        self.data_dir = data_dir
        self.environment = environment
        self.restarts = Restarts()
        self.pid: int | None = None
        self.pidfd = -1
        self.started_at = 0.0

    def start(self) -> None:
        """Start the process in a session of its own, so that ctrl-C reaches only the supervisor."""
        assert self.pid is None, "one process at a time"
        self.data_dir.broker_dir(self.broker_id).mkdir(exist_ok=True)
        log_fd = self.data_dir.open_log(self.broker_id)
        try:
            self.pid = os.posix_spawn(
                self.command[0],
                self.command,
                self.environment,
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, log_fd, 1),
                    (os.POSIX_SPAWN_DUP2, log_fd, 2),
                ],
                setsid=True,
                setsigdef=[signal.SIGINT, signal.SIGTERM, signal.SIGPIPE],
            )
        finally:
            os.close(log_fd)
        self.pidfd = os.pidfd_open(self.pid)
        self.started_at = time.monotonic()
        _write_whole(self.data_dir.pid_file(self.broker_id), f"{self.pid}\n")

    def signal(self, number: int) -> None:
        """Send a signal to the process, if it still runs."""
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, number)

    def reap(self) -> int:
        """Collect the ended process; return its exit code, negative for the signal that ended it."""
        assert self.pid is not None
        _, status = os.waitpid(self.pid, 0)
        os.close(self.pidfd)
        self.pid, self.pidfd = None, -1
        self.data_dir.pid_file(self.broker_id).unlink(missing_ok=True)
        return os.waitstatus_to_exitcode(status)


class Supervisor:
    """Keeps broker processes running until told to stop. Belongs to one event loop.

    `on_exit(process, exit code, seconds it ran)` is called before the restart is planned; it returns whether to restart.
    """

    def __init__(
        self,
        processes: Sequence[BrokerProcess],
        loop: asyncio.AbstractEventLoop,
        on_exit: Callable[[BrokerProcess, int, float], bool],
    ) -> None:
        self.processes = list(processes)
        self._loop = loop
        self._on_exit = on_exit
        self._stopping = False
        self._timers: dict[int, asyncio.TimerHandle] = {}
        self._all_ended = loop.create_future()
        for process in self.processes:
            if process.pid is not None:
                loop.add_reader(process.pidfd, self._ended, process)

    def _ended(self, process: BrokerProcess) -> None:
        self._loop.remove_reader(process.pidfd)
        ran_s = time.monotonic() - process.started_at
        code = process.reap()
        if self._on_exit(process, code, ran_s) and not self._stopping:
            delay_s = process.restarts.delay_s(ran_s)
            self._timers[process.broker_id] = self._loop.call_later(delay_s, self._restart, process)
        self._note_end()

    def _restart(self, process: BrokerProcess) -> None:
        self._timers.pop(process.broker_id, None)
        if self._stopping:
            return
        process.start()
        self._loop.add_reader(process.pidfd, self._ended, process)

    def _note_end(self) -> None:
        idle = all(process.pid is None for process in self.processes)
        if self._stopping and idle and not self._all_ended.done():
            self._all_ended.set_result(None)

    async def stop(self, deadline_s: float) -> list[int]:
        """Ask all processes to stop; kill those that have not by the deadline. Returns the ids of those killed."""
        import asyncio

        self.begin_stop()
        killed: list[int] = []
        try:
            async with asyncio.timeout(deadline_s):
                await asyncio.shield(self._all_ended)
        except TimeoutError:
            killed = [process.broker_id for process in self.processes if process.pid is not None]
            self.kill()
            await self._all_ended
        return killed

    def begin_stop(self) -> None:
        """Send SIGTERM to all processes and restart none from now on."""
        self._stopping = True
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        for process in self.processes:
            process.signal(signal.SIGTERM)
        self._note_end()

    def kill(self) -> None:
        """End all processes now."""
        for process in self.processes:
            process.signal(signal.SIGKILL)


def broker_command(assignments: Sequence[str]) -> list[str]:
    """Return the command line of a broker with these `key=value` settings."""
    command = [sys.executable, "-m", "strandline_operator.cli", "broker"]
    for assignment in assignments:
        command += ["--set", assignment]
    return command


def stop_orphans(data_dir: DataDir, note: Callable[[str], None]) -> None:
    """Stop brokers of this directory that outlived their supervisor. The lock is held, so nobody supervises them."""
    for broker_id in data_dir.broker_ids():
        try:
            pid = int(data_dir.pid_file(broker_id).read_text())
        except (OSError, ValueError):
            continue
        if _is_broker_of(pid, data_dir.broker_dir(broker_id)):
            note(f"broker {broker_id} (pid {pid}) outlived its supervisor; stopping it")
            _stop_process(pid)
        data_dir.pid_file(broker_id).unlink(missing_ok=True)


def _is_broker_of(pid: int, directory: Path) -> bool:
    """Pids are used again: only a process whose command line names this directory is ours."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return f"{directory}{os.sep}".encode() in command


def _stop_process(pid: int) -> None:
    import select

    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGTERM)
        if not select.select([pidfd], [], [], ORPHAN_PATIENCE_S)[0]:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            select.select([pidfd], [], [], ORPHAN_PATIENCE_S)
    except ProcessLookupError:
        pass
    finally:
        os.close(pidfd)


def _write_whole(path: Path, text: str) -> None:
    """Replace a file so that no reader ever sees half of it."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text)
    temporary.replace(path)
