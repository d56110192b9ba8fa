"""The users file of a broker, read again when it changes.

Used by `server.sasl`; `security.users` describes the format.
"""

from __future__ import annotations

import logging
import os
import random
from pathlib import Path

from strandline_broker.security.users import (
    MAX_FILE_BYTES,
    SECRET_BYTES,
    Users,
    UsersError,
    parse_document,
    users_of,
)

logger = logging.getLogger(__name__)

_Signature = tuple[int, int, int]


class UsersFile:
    """Users of the newest version of a file that can be used. All methods block: call them in a thread."""

    def __init__(self, path: str, rng: random.Random) -> None:
        """Read the file. Raises OSError, and UsersError with a text for the user."""
        self._path = Path(path)
        self._spare_secret = rng.randbytes(SECRET_BYTES)
        self._signature: _Signature | None = self._look()
        self.current = self._read()

    def check(self) -> bool:
        """Read the file again if it changed; return whether there are new users.

        A file that cannot be used is logged once, and the users stay as they were.
        """
        signature: _Signature | None = None
        try:
            signature = self._look()
            if signature == self._signature:
                return False
            self.current = self._read()
        except (OSError, UsersError) as error:
            if signature is not None or self._signature is not None:
                logger.error("users stay as they were, the changed file cannot be used: %s", error)
            self._signature = signature
            return False
        self._signature = signature
        logger.info("%s has changed: %d users", self._path, len(self.current))
        return True

    def _look(self) -> _Signature:
        status = os.stat(self._path)  # noqa: PTH116 - follows Kubernetes' symlinks
        return status.st_mtime_ns, status.st_ino, status.st_size

    def _read(self) -> Users:
        with self._path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise UsersError(f"{self._path}: more than {MAX_FILE_BYTES} bytes")
        try:
            text = data.decode()
        except UnicodeDecodeError:
            raise UsersError(f"{self._path}: not UTF-8") from None
        try:
            document = parse_document(text, is_json=self._path.suffix == ".json")
            users = users_of(document, self._spare_secret)
        except UsersError as error:
            raise UsersError("\n".join(f"{self._path}: {line}" for line in str(error).splitlines())) from None
        if users.clear_passwords:
            logger.warning(
                "%s holds %d clear passwords: this is for development only; `strandline users add` makes entries "
                "that nobody can log in with",
                self._path,
                users.clear_passwords,
            )
        return users
