"""What the kernel knows about a process: CPU time, memory, children (Linux /proc, proc(5))."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import NamedTuple

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")


class Memory(NamedTuple):
    """Resident memory of processes in bytes; the proportional set counts shared pages by their share."""

    rss: int
    pss: int


class _Stat(NamedTuple):
    parent: int
    start_ticks: int
    cpu_ticks: int


def _stat(pid: int) -> _Stat | None:
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command may hold blanks and parentheses: fields are counted from the last closing one.
    fields = text[text.rindex(")") + 2 :].split()
    # From field 3, state: 4 is ppid, 14-17 utime, stime and those of ended children, 22 starttime.
    return _Stat(int(fields[1]), int(fields[19]), sum(int(field) for field in fields[11:15]))


def exists(pid: int) -> bool:
    """Whether there is a process of this id."""
    return _stat(pid) is not None


def start_ticks(pid: int) -> int:
    """Return when the process started, in clock ticks since boot: with the pid, the identity of a process.

    Raises:
        ProcessLookupError: it has ended.

    """
    found = _stat(pid)
    if found is None:
        raise ProcessLookupError(f"process {pid} has ended")
    return found.start_ticks


def age_s(pid: int) -> float:
    """Return for how long the process has run, in seconds.

    Raises:
        ProcessLookupError: it has ended.

    """
    return time.clock_gettime(time.CLOCK_BOOTTIME) - start_ticks(pid) / _TICKS_PER_S


def tree(pid: int) -> list[int]:
    """Return the process and all its descendants."""
    children: dict[int, list[int]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit() and (found := _stat(int(entry.name))) is not None:
            children.setdefault(found.parent, []).append(int(entry.name))
    members = [pid]
    for member in members:  # grows while it is walked: breadth first
        members.extend(children.get(member, ()))
    return members


def cpu_s(pids: list[int]) -> float:
    """User and system time of the processes and of their ended children, in seconds (granularity one tick).

    Raises:
        ProcessLookupError: one of them has ended.

    """
    ticks = 0
    for pid in pids:
        found = _stat(pid)
        if found is None:
            raise ProcessLookupError(f"process {pid} has ended")
        ticks += found.cpu_ticks
    return ticks / _TICKS_PER_S


def machine_cpu_s() -> float:
    """Return the time that the machine's processors have worked since boot, for whomever, in seconds (proc_stat(5))."""
    # cpu user nice system idle iowait irq softirq steal; guests are counted as user already.
    user, nice, system, _, _, irq, softirq, *_ = map(
        int, (_PROC / "stat").read_text().splitlines()[0].split()[1:]
    )
    return (user + nice + system + irq + softirq) / _TICKS_PER_S


def memory(pids: list[int]) -> Memory:
    """Resident memory of the processes together (smaps_rollup)."""
    rss = pss = 0
    for pid in pids:
        for line in (_PROC / str(pid) / "smaps_rollup").read_text().splitlines():
            if line.startswith("Rss:"):
                rss += int(line.split()[1]) * 1024
            elif line.startswith("Pss:"):
                pss += int(line.split()[1]) * 1024
    return Memory(rss, pss)


def peak_rss(pid: int) -> int:
    """Return the most resident memory that the process ever had, in bytes (VmHWM of proc(5)).

    Raises:
        ProcessLookupError: it has ended.

    """
    try:
        status = (_PROC / str(pid) / "status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        raise ProcessLookupError(f"process {pid} has ended") from None
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise ProcessLookupError(f"process {pid} has no memory any more")
