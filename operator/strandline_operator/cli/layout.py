"""The data directory of `strandline dev`: who may use it, where things lie, which ports are free.

DIR/lock            held while a supervisor runs; its pid is in it
DIR/cluster.db      the cluster store
DIR/inter-broker.token  the secret by which the brokers know each other
DIR/bucket/         where sealed segments go, unless another bucket is named
DIR/broker-<i>/     data/, pid (while the process runs), broker.log
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import socket
from pathlib import Path

CLUSTER_NAME = "dev"
# The listener that only brokers use.
INTERNAL_LISTENER = "INTERNAL"
DEFAULT_DATA_DIR = ".strandline"
HTTP_PORT_OFFSET = 1000
_MAX_LOG_BYTES = 16 << 20
_TOKEN_BYTES = 32


class LayoutError(Exception):
    """The data directory or the ports cannot be used; the message says what to do."""


class DataDir:
    """Paths below one data directory, and its lock."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._lock_fd: int | None = None

    @property
    def store_file(self) -> Path:
        """The SQLite file of the cluster store."""
        return self.path / "cluster.db"

    @property
    def bucket_dir(self) -> Path:
        """The directory that serves as bucket."""
        return self.path / "bucket"

    @property
    def token_file(self) -> Path:
        """The secret by which the brokers know each other; `ensure_token` makes it."""
        return self.path / "inter-broker.token"

    def broker_dir(self, broker_id: int) -> Path:
        """Everything of one broker."""
        return self.path / f"broker-{broker_id}"

    def pid_file(self, broker_id: int) -> Path:
        """Return the file with the broker's pid, there while its process runs."""
        return self.broker_dir(broker_id) / "pid"

    def log_file(self, broker_id: int) -> Path:
        """Return the file with what the broker printed."""
        return self.broker_dir(broker_id) / "broker.log"

    def broker_ids(self) -> list[int]:
        """Return the ids of brokers that have a folder here, in order."""
        names = (path.name.removeprefix("broker-") for path in self.path.glob("broker-*"))
        return sorted(int(name) for name in names if name.isascii() and name.isdigit())

    def acquire(self) -> None:
        """Create the directory and lock it. Raises LayoutError when another supervisor has it."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            fd = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise LayoutError(
                f"{self.path} cannot be used: {error.strerror}; choose another --data-dir"
            ) from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(fd)
            raise LayoutError(
                f"{self.path} is in use by another `strandline dev` (pid {holder}); stop that one, or choose another "
                "--data-dir"
            ) from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        self._lock_fd = fd

    def release(self) -> None:
        """Give the lock back."""
        if self._lock_fd is not None:
            os.ftruncate(self._lock_fd, 0)
            os.close(self._lock_fd)
            self._lock_fd = None

    def in_use(self) -> bool:
        """Say whether a supervisor runs on this directory."""
        try:
            fd = os.open(self.path / "lock", os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False

    def ensure_token(self) -> None:
        """Make the token file if there is none; only this user can read it. Raises LayoutError.

        Precondition: the directory is locked. A file that a crash left empty is made anew: no broker has used it.
        """
        try:
            if self.token_file.exists() and self.token_file.stat().st_size > 0:
                return
            fd = os.open(self.token_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                os.write(fd, f"{secrets.token_hex(_TOKEN_BYTES)}\n".encode())
            finally:
                os.close(fd)
        except OSError as error:
            raise LayoutError(f"{self.token_file} cannot be made: {error.strerror}") from error

    def open_log(self, broker_id: int) -> int:
        """Open a broker's log for appending, the old one put aside when it has grown large; return the descriptor."""
        path = self.log_file(broker_id)
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_size > _MAX_LOG_BYTES:
                path.replace(path.with_suffix(".log.1"))
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)

    def log_tail(self, broker_id: int, lines: int = 12) -> str:
        """Return the end of what a broker printed."""
        try:
            with self.log_file(broker_id).open("rb") as file:
                file.seek(0, os.SEEK_END)
                file.seek(max(0, file.tell() - 8192))
                text = file.read().decode(errors="replace")
        except OSError:
            return ""
        return "\n".join(text.splitlines()[-lines:])


def choose_ports(host: str, port: int, brokers: int) -> list[tuple[int, int]]:
    """Return (Kafka port, HTTP port) for each broker; `port` 0 picks free ones. Raises LayoutError for taken ports."""
    wanted = [(port + i, port + HTTP_PORT_OFFSET + i) if port else (0, 0) for i in range(brokers)]
    with contextlib.ExitStack() as stack:
        # All are held until all are known, so that no number comes twice.
        return [(_bind(stack, host, kafka), _bind(stack, host, http)) for kafka, http in wanted]


def _bind(stack: contextlib.ExitStack, host: str, port: int) -> int:
    if port > 65535:
        raise LayoutError(f"port {port} does not exist; choose a lower --port")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM)[
            0
        ]
        listener = stack.enter_context(socket.socket(family, kind, protocol))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        reason = error.strerror or str(error)
        raise LayoutError(
            f"port {port} of {host} cannot be used ({reason}); choose others with --port, or --port 0 for free ones"
        ) from error
    bound: int = listener.getsockname()[1]
    return bound
