"""The cleaner's work in a process of its own, so that it never holds the interpreter that serves clients.

Who uses it: the broker makes a `ChildWorker`; `python -m` of this module is the other side.

A child lives for one cleaning, at the lowest priority, and gives its memory back by ending. It reads requests
from standard input and answers on standard output, one JSON object per line: `{"build": job}`, then
`{"write": sources}` for each group. An answer is `{"result": ...}` or `{"error": kind, ...}`, both with the
processor seconds used so far. It ends with its input, and when its parent is gone it ends by itself.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from strandline_broker.log.cleaner_plan import Group, Source
from strandline_broker.log.cleaner_work import Cleaned, CleaningAborted, InlineWorker, Job, Mapped
from strandline_broker.log.names import CLEANED_SUFFIX, SEGMENT_SUFFIXES, file_name
from strandline_broker.log.scan import CorruptBatch
from strandline_broker.seams.disk import DiskError
from strandline_broker.seams.local_disk import LocalDisk
from strandline_broker.wire.errors import DecodeError

if TYPE_CHECKING:
    from typing import TextIO

_MODULE = "strandline_broker.log.cleaner_child"
_NICENESS = 19
_END_TIMEOUT_S = 10.0


class ChildWorker:
    """A `Worker` whose work is done by a child process."""

    def __init__(self, disk: LocalDisk) -> None:
        self._disk = disk
        self._process: subprocess.Popen[str] | None = None
        self._cancelled = False
        self._directory = ""
        self.cpu_s = 0.0
        """Processor time of the child so far."""

    def build(self, job: Job) -> Mapped:
        """Start the child and let it build the offset map."""
        self._directory = job.directory
        self._process = subprocess.Popen(  # noqa: S603 # our own interpreter and module
            [sys.executable, "-P", "-m", _MODULE, self._disk.root, str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return Mapped(**self._ask({"build": asdict(job)}))

    def write(self, group: Group) -> Cleaned:
        """Let the child write a replacement."""
        try:
            return Cleaned(**self._ask({"write": [asdict(source) for source in group.sources]}))
        except CleaningAborted:
            self._discard(group)
            raise

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        process = self._process
        assert process is not None, "build comes first"
        assert process.stdin is not None
        assert process.stdout is not None
        if self._cancelled:
            process.kill()
            raise CleaningAborted
        try:
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
        except BrokenPipeError:
            line = ""
        else:
            line = process.stdout.readline()
        if not line:
            code = process.wait()
            if self._cancelled:
                raise CleaningAborted
            raise ChildDied(f"the cleaner's process ended with {code}")
        answer = json.loads(line)
        self.cpu_s = answer["cpu_s"]
        if "error" in answer:
            raise _to_exception(answer)
        result: dict[str, Any] = answer["result"]
        return result

    def _discard(self, group: Group) -> None:
        """Remove what a killed child could not."""
        for kind in SEGMENT_SUFFIXES:
            name = file_name(group.base_offset, kind) + CLEANED_SUFFIX
            self._disk.remove(f"{self._directory}/{name}")

    def cancel(self) -> None:
        """Kill the child; safe in any thread."""
        self._cancelled = True
        process = self._process
        if process is not None:
            process.kill()

    def close(self) -> None:
        """Let the child end and wait for it."""
        process = self._process
        if process is None:
            return
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.close()
        except BrokenPipeError:
            pass  # it is gone already
        try:
            process.wait(_END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
        self._process = None


class ChildDied(OSError):  # noqa: N818 # it names what happened
    """The process ended without an answer: out of memory, killed. Trying again later may help."""


def _to_answer(error: Exception) -> dict[str, Any]:
    if isinstance(error, CorruptBatch):
        return {
            "error": "corrupt",
            "path": error.path,
            "position": error.position,
            "message": error.reason,
        }
    if isinstance(error, DecodeError):
        return {"error": "malformed", "message": str(error)}
    if isinstance(error, OSError):
        return {
            "error": "disk",
            "errno": error.errno,
            "message": error.strerror or str(error),
            "path": error.filename,
        }
    if isinstance(error, MemoryError):
        return {"error": "disk", "errno": None, "message": "out of memory", "path": None}
    return {"error": "other", "message": repr(error)}


def _to_exception(answer: dict[str, Any]) -> Exception:
    message = answer["message"]
    match answer["error"]:
        case "corrupt":
            return CorruptBatch(answer["path"], answer["position"], message)
        case "malformed":
            return DecodeError(message)
        case "disk":
            return DiskError(answer["errno"], message, answer["path"])
        case _:
            return RuntimeError(message)


def _serve(root: str, parent: int, requests: TextIO, answers: TextIO) -> None:
    def check() -> None:
        if os.getppid() != parent:
            os._exit(1)  # nobody waits for what this is doing

    worker = InlineWorker(LocalDisk(root), check=check)
    for line in requests:
        answer: dict[str, Any]
        try:
            answer = {"result": asdict(_answer(worker, json.loads(line)))}
        except Exception as error:  # noqa: BLE001 # the other side raises it
            answer = _to_answer(error)
        answer["cpu_s"] = time.process_time()
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _answer(worker: InlineWorker, request: dict[str, Any]) -> Mapped | Cleaned:
    if "build" in request:
        job = request["build"]
        job["sources"] = tuple(Source(**source) for source in job["sources"])
        job["last_batches"] = {int(key): tuple(value) for key, value in job["last_batches"].items()}
        return worker.build(Job(**job))
    return worker.write(Group(tuple(Source(**source) for source in request["write"])))


def main() -> None:
    """Serve one parent; the arguments are the data directory and the parent's process id."""
    # Control-C is for the broker, which ends this process in its own time.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(_NICENESS)
    _serve(sys.argv[1], int(sys.argv[2]), sys.stdin, sys.stdout)


if __name__ == "__main__":
    main()
