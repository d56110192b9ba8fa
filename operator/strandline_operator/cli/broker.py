"""`strandline broker`: one broker process. Imports nothing that only other commands need."""

from __future__ import annotations

import os
import signal
import sys

import click

# Set by a supervisor to its own pid: the broker then ends when the supervisor does, however that ended.
SUPERVISOR_VARIABLE = "_STRANDLINE_SUPERVISOR"
_PR_SET_PDEATHSIG = 1


@click.command()
@click.option("--config", "file", type=click.Path(dir_okay=False), help="YAML file with `key: value` lines.")
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="KEY=VALUE",
    help="One key; wins over file and environment.",
)
def broker(file: str | None, assignments: tuple[str, ...]) -> None:
    """Run one broker until SIGTERM. Every key can also come from the environment as STRANDLINE_<KEY>."""
    from strandline_broker.server.config import ConfigError, load

    _end_with_supervisor()
    try:
        config = load(file, assignments)
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    except OSError as error:
        raise click.ClickException(f"{file}: {error.strerror}") from error
    from strandline_broker.server.run import run

    sys.exit(run(config))


def _end_with_supervisor() -> None:
    expected = os.environ.pop(SUPERVISOR_VARIABLE, None)
    if expected is None:
        return
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        raise click.ClickException(f"prctl: {os.strerror(ctypes.get_errno())}")
    if os.getppid() != int(expected):
        raise click.ClickException("the supervisor that started this broker is gone already")
