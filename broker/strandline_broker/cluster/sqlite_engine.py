"""The synchronous half of `SqliteStore`: transactions on one connection, used by one thread at a time.

Tables: `objects` holds each object's JSON; `events` the recent history of every kind, with the object after
each change; `kinds` per kind the version of its last change (`head`), the version up to which its history was
cut (`floor`), and how many events it has; `counter` the last version given. Versions are one sequence over
all kinds.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Final

import orjson

from . import object_rules
from .model import KINDS, Object
from .store import (
    AlreadyExists,
    EventType,
    Gone,
    Invalid,
    NotFound,
    Operation,
    Subresource,
    Test,
    Unavailable,
    Validator,
)
from .store import Event as StoreEvent

_FORMAT: Final = 1
_BUSY_TIMEOUT_MS: Final = 5_000
_SCHEMA: Final = (
    "CREATE TABLE counter (only INTEGER PRIMARY KEY CHECK (only = 1), version INTEGER NOT NULL)",
    "INSERT INTO counter VALUES (1, 0)",
    """CREATE TABLE kinds (
        kind TEXT PRIMARY KEY, head INTEGER NOT NULL, floor INTEGER NOT NULL, events INTEGER NOT NULL
    ) WITHOUT ROWID""",
    """CREATE TABLE objects (
        kind TEXT NOT NULL, name TEXT NOT NULL, body BLOB NOT NULL, PRIMARY KEY (kind, name)
    ) WITHOUT ROWID""",
    """CREATE TABLE events (
        kind TEXT NOT NULL, version INTEGER NOT NULL, type TEXT NOT NULL, body BLOB NOT NULL,
        PRIMARY KEY (kind, version)
    ) WITHOUT ROWID""",
)


def connect(path: str) -> sqlite3.Connection:
    """Open a connection that commits only on request. Any thread may use it, one at a time."""
    connection = sqlite3.connect(
        path, isolation_level=None, check_same_thread=False, timeout=_BUSY_TIMEOUT_MS / 1000
    )
    # FULL: a write that was acknowledged is on disk, also after a power cut. An ISR or an epoch must never
    # step back.
    connection.execute("PRAGMA synchronous=FULL")
    return connection


def prepare(connection: sqlite3.Connection) -> None:
    """Switch to WAL and create the tables if the file is new.

    Raises Unavailable on a file of another format.
    """
    _switch_to_wal(connection)
    connection.execute("BEGIN IMMEDIATE")
    try:
        (found,) = connection.execute("PRAGMA user_version").fetchone()
        if found == 0:
            for statement in _SCHEMA:
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version={_FORMAT}")
        elif found != _FORMAT:
            raise Unavailable(f"the cluster store has format {found}; this version reads format {_FORMAT}")
        # On every open: a newer version may know more kinds than the one that made the file.
        connection.executemany("INSERT OR IGNORE INTO kinds VALUES (?, 0, 0, 0)", [(kind,) for kind in KINDS])
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def _switch_to_wal(connection: sqlite3.Connection) -> None:
    # SQLite does not wait here when several processes open a new file at once.
    deadline = time.monotonic() + _BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


class Engine:
    """The store's operations as transactions. Raises the store's errors and `sqlite3.Error`.

    `history`: events kept per kind; up to a quarter more are there before they are cut.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        *,
        history: int,
        validator: Validator | None,
        new_uid: Callable[[], str],
        now_ms: Callable[[], int],
    ) -> None:
        assert history > 0
        self._connection = connection
        self._history = history
        self._validator = validator
        self._new_uid = new_uid
        self._now_ms = now_ms

    def run_together(self, operations: Sequence[Callable[[Engine], object]]) -> list[object]:
        """Run operations of this engine in one transaction; return what each returned, or the error that it raised.

        One that fails leaves no trace. Raises sqlite3.Error for all of them: none happened then, or, where the commit
        failed, nobody knows.
        """
        if len(operations) == 1:
            return [self._outcome(operations[0])]
        with self._transaction("IMMEDIATE"):
            return [self._outcome(operation) for operation in operations]

    def _outcome(self, operation: Callable[[Engine], object]) -> object:
        try:
            return operation(self)
        except sqlite3.Error:
            raise
        except Exception as error:  # noqa: BLE001 - whoever asked gets it
            return error

    # -- reads --

    def get(self, kind: str, name: str) -> Object:
        """See `ClusterStore.get`."""
        object_rules.check_kind(kind)
        row = self._connection.execute(
            "SELECT body FROM objects WHERE kind=? AND name=?", (kind, name)
        ).fetchone()
        if row is None:
            raise NotFound(f"there is no {kind} {name}")
        return _load(row[0])

    def list_objects(self, kind: str) -> tuple[list[Object], str]:
        """See `ClusterStore.list`."""
        object_rules.check_kind(kind)
        with self._transaction("DEFERRED"):
            (version,) = self._connection.execute("SELECT version FROM counter").fetchone()
            rows = self._connection.execute(
                "SELECT body FROM objects WHERE kind=? ORDER BY name", (kind,)
            ).fetchall()
        return [_load(body) for (body,) in rows], str(version)

    def events_after(self, kind: str, version: int, limit: int) -> list[StoreEvent]:
        """Return at most `limit` events of a kind after `version`, oldest first. Raises Gone."""
        with self._transaction("DEFERRED"):
            (newest,) = self._connection.execute("SELECT version FROM counter").fetchone()
            (floor,) = self._connection.execute("SELECT floor FROM kinds WHERE kind=?", (kind,)).fetchone()
            if not floor <= version <= newest:
                raise Gone(f"{kind} events after version {version} are not kept; {floor} to {newest} are")
            rows = self._connection.execute(
                "SELECT type, body FROM events WHERE kind=? AND version>? ORDER BY version LIMIT ?",
                (kind, version, limit),
            ).fetchall()
        return [StoreEvent(EventType(type_), _load(body)) for type_, body in rows]

    # -- writes --

    def create(self, kind: str, obj: Object) -> Object:
        """See `ClusterStore.create`."""
        new = object_rules.created(
            kind, obj, uid=self._new_uid(), now=self._timestamp(), validator=self._validator
        )
        name = new["metadata"]["name"]
        with self._transaction("IMMEDIATE"):
            if self._connection.execute(
                "SELECT 1 FROM objects WHERE kind=? AND name=?", (kind, name)
            ).fetchone():
                raise AlreadyExists(f"{kind} {name} exists already")
            return self._store(kind, new, EventType.ADDED)

    def patch_if(
        self,
        kind: str,
        name: str,
        uid: str,
        tests: Sequence[Test],
        operations: Sequence[Operation],
        subresource: Subresource | None,
    ) -> Object:
        """See `ClusterStore.patch_if`."""
        with self._transaction("IMMEDIATE"):
            old = self.get(kind, name)
            object_rules.check_tests(kind, old, uid, tests)
            new = object_rules.patched(kind, old, operations, subresource, self._validator)
            if new is None:
                return old
            if object_rules.is_finished(new):
                return self._store(kind, new, EventType.DELETED)
            return self._store(kind, new, EventType.MODIFIED)

    def delete_if(self, kind: str, name: str, uid: str, tests: Sequence[Test]) -> None:
        """See `ClusterStore.delete_if`."""
        with self._transaction("IMMEDIATE"):
            old = self.get(kind, name)
            object_rules.check_tests(kind, old, uid, tests)
            if not old["metadata"].get("finalizers"):
                self._store(kind, old, EventType.DELETED)
                return
            marked = object_rules.marked_for_deletion(kind, old, self._timestamp())
            if marked is not None:
                self._store(kind, marked, EventType.MODIFIED)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _store(self, kind: str, obj: Object, type_: EventType) -> Object:
        execute = self._connection.execute
        (version,) = execute("UPDATE counter SET version=version+1 RETURNING version").fetchone()
        name = obj["metadata"]["name"]
        obj["metadata"]["resourceVersion"] = str(version)
        try:
            body = orjson.dumps(obj)
        except TypeError as error:
            raise Invalid(f"{kind} {name} holds something that is not JSON: {error}") from error
        if len(body) > object_rules.MAX_OBJECT_BYTES:
            raise Invalid(
                f"{kind} {name} has {len(body)} bytes; {object_rules.MAX_OBJECT_BYTES} is the limit"
            )
        if type_ is EventType.DELETED:
            execute("DELETE FROM objects WHERE kind=? AND name=?", (kind, name))
        else:
            execute("INSERT OR REPLACE INTO objects VALUES (?, ?, ?)", (kind, name, body))
        execute("INSERT INTO events VALUES (?, ?, ?, ?)", (kind, version, type_.value, body))
        (events,) = execute(
            "UPDATE kinds SET head=?, events=events+1 WHERE kind=? RETURNING events", (version, kind)
        ).fetchone()
        if events > self._history + self._history // 4:
            self._cut_history(kind)
        # Through JSON and back: the caller gets its own copy, and sees what everybody else will see.
        return _load(body)

    def _cut_history(self, kind: str) -> None:
        execute = self._connection.execute
        (floor,) = execute(
            "SELECT version FROM events WHERE kind=? ORDER BY version DESC LIMIT 1 OFFSET ?",
            (kind, self._history),
        ).fetchone()
        execute("DELETE FROM events WHERE kind=? AND version<=?", (kind, floor))
        execute("UPDATE kinds SET floor=?, events=? WHERE kind=?", (floor, self._history, kind))

    @contextmanager
    def _transaction(self, mode: str) -> Iterator[None]:
        if self._connection.in_transaction:
            begin, end, undo = "SAVEPOINT one", "RELEASE one", "ROLLBACK TO one; RELEASE one"
        else:
            begin, end, undo = f"BEGIN {mode}", "COMMIT", "ROLLBACK"
        self._connection.execute(begin)
        try:
            yield
            self._connection.execute(end)
        except BaseException:
            if self._connection.in_transaction:
                for statement in undo.split("; "):
                    self._connection.execute(statement)
            raise

    def _timestamp(self) -> str:
        moment = datetime.fromtimestamp(self._now_ms() // 1000, tz=UTC)
        return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _load(body: bytes) -> Object:
    obj: Object = orjson.loads(body)
    return obj
