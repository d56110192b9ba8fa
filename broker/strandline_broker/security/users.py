"""The users of a broker and their credentials, from the text of a users file.

    salt_secret: <base64, made by `strandline users add`>
    users:
      alice:
        SCRAM-SHA-256: {salt: <base64>, iterations: 4096, stored_key: <base64>, server_key: <base64>}
        SCRAM-SHA-512: {salt: ..., iterations: ..., stored_key: ..., server_key: ...}
      bob:
        password: for development only

PLAIN is verified against the same keys, so no clear password need lie on a disk. A clear `password` stands for
credentials of every mechanism.

Nobody can find out which users exist: a name without credentials gets made-up ones, always the same for the same name, so
that every exchange takes the same steps up to its end. What is made up depends on `salt_secret`; without it, on a secret
of this process, and then salts that change with a restart tell unknown names from known ones.

Names and passwords must be in the form that SASLprep gives them: Kafka's clients send them as they are typed, others
prepare them, and both must mean the same user.

Pure. Used by `server.users_file` and by `strandline users`.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from strandline_broker.security.credentials import (
    DEFAULT_ITERATIONS,
    SALT_BYTES,
    ScramCredential,
    ScramMechanism,
    derive,
)
from strandline_broker.security.saslprep import NotPreparableError, saslprep

MAX_FILE_BYTES: Final = 16 * 1024 * 1024
MAX_NAME_BYTES: Final = 255
MAX_PASSWORD_BYTES: Final = 1024
MIN_SECRET_BYTES: Final = 16
SECRET_BYTES: Final = 32
_MAX_DEPTH: Final = 8

_PASSWORD: Final = "password"  # noqa: S105 - the name of a key
_SECRET: Final = "salt_secret"  # noqa: S105 - the name of a key


class UsersError(ValueError):
    """The users file cannot be used; the text has a line per problem and quotes no secret."""


class Found(NamedTuple):
    """What a login is checked against."""

    name: str
    """The prepared name."""
    credential: ScramCredential
    known: bool
    """Whether such a user exists; if not, the credential is made up and no login may succeed."""

    def why_not(self) -> str:
        """Say for the log why a login failed. Unknown names are left out: some people type passwords there."""
        return f"wrong password for user {self.name!r}" if self.known else "no such user"


class Users:
    """Users and credentials; never changes."""

    __slots__ = ("_common", "_credentials", "_secret", "clear_passwords")

    def __init__(
        self,
        credentials: Mapping[str, Mapping[ScramMechanism, ScramCredential]],
        secret: bytes,
        clear_passwords: int = 0,
    ) -> None:
        self._credentials = credentials
        self._secret = secret
        self.clear_passwords = clear_passwords
        """How many users have a clear password in the file."""
        self._common = {mechanism: _most_common(credentials, mechanism) for mechanism in ScramMechanism}

    def __len__(self) -> int:
        return len(self._credentials)

    def __repr__(self) -> str:
        return f"<Users: {len(self)}>"

    def find(self, name: str, mechanism: ScramMechanism) -> Found:
        """Return what a login by `mechanism` is checked against, for any name."""
        prepared = _prepare(name)
        made_up = self._make_up(mechanism, name)
        credential = self._credentials.get(prepared, {}).get(mechanism)
        return Found(prepared, credential or made_up, credential is not None)

    def find_for_plain(self, name: str) -> Found:
        """Return what a login by PLAIN is checked against: SCRAM-SHA-256 if the user has it, for it is cheaper."""
        mechanism, other = ScramMechanism.SHA_256, ScramMechanism.SHA_512
        if self._common[mechanism].users < self._common[other].users:
            mechanism, other = other, mechanism
        found = self.find(name, mechanism)
        if not found.known and other in self._credentials.get(found.name, {}):
            return self.find(name, other)
        return found

    def _make_up(self, mechanism: ScramMechanism, name: str) -> ScramCredential:
        common = self._common[mechanism]
        size = mechanism.key_bytes
        return ScramCredential(
            mechanism,
            made_up_bytes(self._secret, mechanism, "salt", name)[: common.salt_bytes],
            common.iterations,
            made_up_bytes(self._secret, mechanism, "stored key", name)[:size],
            made_up_bytes(self._secret, mechanism, "server key", name)[:size],
        )


class _Common(NamedTuple):
    """What most credentials of a mechanism have, so that made-up ones do not stand out."""

    iterations: int
    salt_bytes: int
    users: int


def _most_common(
    credentials: Mapping[str, Mapping[ScramMechanism, ScramCredential]], mechanism: ScramMechanism
) -> _Common:
    shapes: Counter[tuple[int, int]] = Counter()
    for by_mechanism in credentials.values():
        credential = by_mechanism.get(mechanism)
        if credential is not None:
            shapes[credential.iterations, len(credential.salt)] += 1
    if not shapes:
        return _Common(DEFAULT_ITERATIONS, SALT_BYTES, 0)
    # The smallest of the most frequent: the answer must not depend on the order of the file.
    iterations, salt_bytes = min(shapes, key=lambda shape: (-shapes[shape], shape))
    return _Common(iterations, salt_bytes, shapes.total())


def made_up_bytes(secret: bytes, mechanism: ScramMechanism, use: str, name: str) -> bytes:
    """Return 64 bytes that look random and are always the same for the same arguments."""
    return hmac.digest(secret, f"{mechanism}\0{use}\0{name}".encode(errors="surrogatepass"), "sha512")


def _prepare(name: str) -> str:
    try:
        return saslprep(name)
    except NotPreparableError:
        return name  # no user is named so


# --- the file -----------------------------------------------------------------------------------------------


def parse_document(text: str, *, is_json: bool = False) -> dict[str, Any]:
    """Return the mapping that a users file holds. Raises UsersError; the parsers' own texts could quote a password."""
    if is_json:
        try:
            document = json.loads(text)
        except json.JSONDecodeError as error:
            raise UsersError(f"not JSON at line {error.lineno}, column {error.colno}") from None
        except (ValueError, RecursionError):
            raise UsersError("not JSON") from None
    else:
        document = _load_yaml(text)
    if document is None:
        document = {}
    if not isinstance(document, dict) or not document.keys() <= {"users", _SECRET}:
        raise UsersError(f"expected a mapping with `users` and `{_SECRET}`, nothing else")
    if document.get("users") is None:
        document["users"] = {}
    if not isinstance(document["users"], dict):
        raise UsersError("users: expected a mapping from names to credentials")
    return document


def _load_yaml(text: str) -> Any:
    import yaml  # here, because a broker without users does not pay for the parser

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    depth = 0
    try:
        # The C loader ends the process when nesting is deep, and aliases can make much of little.
        for event in yaml.parse(text, loader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _MAX_DEPTH or isinstance(event, yaml.AliasEvent):
                raise UsersError("not a users file: too deep, or with aliases")
        return yaml.load(text, loader)  # noqa: S506 - both are safe loaders
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
        raise UsersError(f"not YAML{where}") from None
    except UsersError:
        raise
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, KeyError):
        # Whatever the parser makes of `!!int x` or `!!timestamp y`.
        raise UsersError("not YAML of text, numbers and mappings") from None


def users_of(document: Mapping[str, Any], spare_secret: bytes) -> Users:
    """Return the users of a document; `spare_secret` stands in for a missing `salt_secret`.

    Derives keys for clear passwords, milliseconds each: keep it off the event loop. Raises UsersError.
    """
    problems: list[str] = []
    secret = spare_secret
    try:
        secret = secret_of(document) or spare_secret
    except UsersError as error:
        problems.append(str(error))
    credentials = {}
    clear = 0
    for name, entry in document["users"].items():
        try:
            check_name(name)
            credentials[name] = dict(_credentials_of(name, entry, secret))
            clear += _PASSWORD in entry
        except ValueError as error:
            problems.append(f"user {str(name)[:MAX_NAME_BYTES]!r}: {error}")
    if problems:
        raise UsersError("\n".join(problems))
    return Users(credentials, secret, clear)


def secret_of(document: Mapping[str, Any]) -> bytes | None:
    """Return the secret that made-up salts depend on, None where the file has none. Raises UsersError."""
    text = document.get(_SECRET)
    if text is None:
        return None
    try:
        secret = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError, TypeError):
        secret = b""
    if len(secret) < MIN_SECRET_BYTES:
        raise UsersError(f"{_SECRET}: needs the base64 of at least {MIN_SECRET_BYTES} random bytes")
    return secret


def check_name(name: object) -> None:
    """Raise ValueError if no user can be named so."""
    if not isinstance(name, str):
        raise ValueError("a name must be text: put it in quotes")
    try:
        changed = saslprep(name) != name
    except NotPreparableError as error:
        raise ValueError(f"the name has {error}") from None
    if changed:
        raise ValueError(
            "the name is not in the form of SASLprep (RFC 4013): clients differ in how they send it"
        )
    if len(name.encode()) > MAX_NAME_BYTES:
        raise ValueError(f"the name is longer than {MAX_NAME_BYTES} bytes")


def check_password(password: object) -> str:
    """Return a password that clients of all kinds can log in with; raises ValueError without quoting it."""
    if not isinstance(password, str):
        raise ValueError("a password must be text: put it in quotes")
    try:
        changed = saslprep(password) != password
    except NotPreparableError:
        raise ValueError("the password is empty or has a character that is not allowed (RFC 4013)") from None
    if changed:
        raise ValueError(
            "the password is not in the form of SASLprep (RFC 4013): clients differ in how they send it"
        )
    if len(password.encode()) > MAX_PASSWORD_BYTES:
        raise ValueError(f"the password is longer than {MAX_PASSWORD_BYTES} bytes")
    return password


def _credentials_of(
    name: str, entry: object, secret: bytes
) -> Iterator[tuple[ScramMechanism, ScramCredential]]:
    if not isinstance(entry, Mapping) or not entry:
        raise ValueError(f"needs {', '.join(ScramMechanism)} or {_PASSWORD}")
    if _PASSWORD in entry:
        if len(entry) > 1:
            raise ValueError(f"has a {_PASSWORD} and something else; only one can count")
        password = check_password(entry[_PASSWORD])
        for mechanism in ScramMechanism:
            salt = made_up_bytes(secret, mechanism, "salt", name)[:SALT_BYTES]
            yield mechanism, derive(mechanism, password, salt, DEFAULT_ITERATIONS)
        return
    for mechanism_name, raw in entry.items():
        if mechanism_name not in tuple(ScramMechanism):
            raise ValueError(
                f"{str(mechanism_name)[:64]!r} is none of {', '.join(ScramMechanism)}, {_PASSWORD}"
            )
        mechanism = ScramMechanism(mechanism_name)
        yield mechanism, ScramCredential.from_mapping(mechanism, raw)
