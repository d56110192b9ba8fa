"""What was measured where: versions, processor, disk. Printed above the table and kept in the JSON."""

from __future__ import annotations

import os
import platform
import shutil
import statistics
import subprocess
import time
from importlib import metadata
from pathlib import Path

from confluent_kafka import libversion

from benchmarks.kafka_jars import KAFKA_VERSION

_SYNC_SAMPLES = 50
_NOT_A_DISK = {"tmpfs", "ramfs", "overlay"}


class NotADiskError(Exception):
    """The folder for the brokers' data is not on a real file system, or too small."""


def describe(directory: Path) -> dict[str, str]:
    """Return facts about machine, versions and the file system of `directory`."""
    facts = {
        "system": f"{platform.system()} {platform.release()}",
        "processor": f"{os.cpu_count()} x {_processor()}",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1e9:.1f} GB",
        "file system": file_system(directory),
        "fdatasync of 4 KiB": f"{_sync_us(directory):.0f} us (median)",
        "Python": platform.python_version(),
        "Strandline": _version("strandline"),
        "librdkafka": libversion()[0],
        "Apache Kafka": KAFKA_VERSION,
    }
    if java := shutil.which("java"):
        shown = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
        facts["Java"] = shown.splitlines()[0] if shown else "?"
    return facts


def file_system(directory: Path) -> str:
    """Return the type of the file system that holds `directory`."""
    wanted = directory.resolve()
    best, kind = Path("/"), "?"
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _device, point, found, *_rest = line.split()
        if wanted.is_relative_to(point) and len(Path(point).parts) >= len(best.parts):
            best, kind = Path(point), found
    return kind


def require_disk(directory: Path) -> None:
    """Refuse memory file systems and container layers, where writing and syncing mean something else.

    Raises:
        NotADiskError: `directory` lies on one.

    """
    if (kind := file_system(directory)) in _NOT_A_DISK:
        raise NotADiskError(f"{directory} is on {kind}; choose a folder on a disk with --dir")


def require_space(directory: Path, needed_bytes: int) -> None:
    """Refuse a disk that the loads would fill.

    Raises:
        NotADiskError: less than `needed_bytes` are free.

    """
    if (free := shutil.disk_usage(directory).free) < needed_bytes:
        raise NotADiskError(
            f"{directory} has {free / 1e9:.0f} GB free, this run needs {needed_bytes / 1e9:.0f} GB"
        )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _sync_us(directory: Path) -> float:
    path = directory / "sync-probe"
    took = []
    with path.open("wb", buffering=0) as file:
        for _ in range(_SYNC_SAMPLES):
            file.write(b"x" * 4096)
            before = time.perf_counter_ns()
            os.fdatasync(file.fileno())
            took.append(time.perf_counter_ns() - before)
    path.unlink()
    return statistics.median(took) / 1000
