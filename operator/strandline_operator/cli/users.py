"""`strandline users`: make and change the users file of brokers with SASL listeners.

A password is asked for, or read from standard input; never an argument, which other users of the machine could see. What is
written is salted and hashed (SCRAM): nobody can log in with it. Running brokers take up the changed file by themselves.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from strandline_broker.seams.randomness import system_random
from strandline_broker.security.credentials import (
    DEFAULT_ITERATIONS,
    MAX_ITERATIONS,
    MIN_ITERATIONS,
    SALT_BYTES,
    ScramMechanism,
    derive,
)
from strandline_broker.security.users import (
    SECRET_BYTES,
    UsersError,
    check_name,
    check_password,
    parse_document,
    secret_of,
    users_of,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

_file = click.option(
    "--file",
    "file",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="The users file (sasl_users_file of the brokers); YAML, or JSON if its name ends with .json.",
)


@click.group()
def users() -> None:
    """Make and change the users file of brokers with SASL listeners."""


@users.command()
@click.argument("name")
@_file
@click.option(
    "--password-stdin", is_flag=True, help="Read the password from the first line of standard input."
)
@click.option(
    "--mechanism",
    "mechanisms",
    multiple=True,
    type=click.Choice([mechanism.value for mechanism in ScramMechanism]),
    help="Only for these mechanisms (default: all). PLAIN works with any of them.",
)
@click.option(
    "--iterations",
    type=click.IntRange(MIN_ITERATIONS, MAX_ITERATIONS),
    default=DEFAULT_ITERATIONS,
    show_default=True,
    help="More make guessing costlier, and logins too.",
)
def add(name: str, file: Path, password_stdin: bool, mechanisms: Sequence[str], iterations: int) -> None:
    """Add a user, or give one a new password."""
    document = _read(file)
    try:
        check_name(name)
        password = check_password(_ask(password_stdin))
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    rng = system_random()
    wanted = [ScramMechanism(mechanism) for mechanism in mechanisms or ScramMechanism]
    existed = name in document["users"]
    document["users"][name] = {
        str(mechanism): derive(mechanism, password, rng.randbytes(SALT_BYTES), iterations).to_mapping()
        for mechanism in wanted
    }
    if secret_of(document) is None:
        document["salt_secret"] = base64.b64encode(rng.randbytes(SECRET_BYTES)).decode()
    _write(file, document)
    click.echo(f"{'changed' if existed else 'added'} {name} ({', '.join(wanted)}) in {file}")


@users.command()
@click.argument("name")
@_file
def remove(name: str, file: Path) -> None:
    """Remove a user. Connections that are open stay so until they have to authenticate again."""
    document = _read(file)
    if document["users"].pop(name, None) is None:
        raise click.ClickException(f"there is no user {name!r} in {file}")
    _write(file, document)
    click.echo(f"removed {name} from {file}")


@users.command("list")
@_file
def list_(file: Path) -> None:
    """List the users and their mechanisms."""
    for name, entry in sorted(_read(file)["users"].items()):
        click.echo(f"{name}\t{', '.join(sorted(entry))}")


def _ask(password_stdin: bool) -> str:
    if password_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    password: str = click.prompt("Password", hide_input=True, confirmation_prompt=True)
    return password


def _read(file: Path) -> dict[str, Any]:
    """Return the document, an empty one if there is no file. Whatever a broker would refuse is refused here, too."""
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {"users": {}}
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise click.ClickException(f"{file}: {reason}") from None
    try:
        document = parse_document(text, is_json=file.suffix == ".json")
        users_of(document, bytes(SECRET_BYTES))
    except UsersError as error:
        raise click.ClickException("\n".join(f"{file}: {line}" for line in str(error).splitlines())) from None
    return document


def _write(file: Path, document: dict[str, Any]) -> None:
    """Replace the file at one go, readable for its owner only unless it was more already."""
    import yaml

    ordered = {key: document[key] for key in ("salt_secret", "users") if key in document}
    if file.suffix == ".json":
        text = json.dumps(ordered, indent=2, ensure_ascii=False) + "\n"
    else:
        text = yaml.safe_dump(ordered, sort_keys=False, allow_unicode=True, width=200)
    target = file.resolve()
    temporary = ""
    try:
        descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        with os.fdopen(descriptor, "w", encoding="utf-8") as out:
            out.write(text)
            out.flush()
            with contextlib.suppress(FileNotFoundError):
                os.fchmod(out.fileno(), target.stat().st_mode & 0o777)
            os.fsync(out.fileno())
        Path(temporary).replace(target)
    except OSError as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        raise click.ClickException(f"{file}: {error.strerror}") from None
