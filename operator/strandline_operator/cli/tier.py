"""`strandline tier`: reserved, and honest about it."""

from __future__ import annotations

import click


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("action", type=click.Choice(["ls", "verify", "scrub", "restore"]))
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def tier(action: str, arguments: tuple[str, ...]) -> None:
    """Look after tiered storage: list, verify, scrub, restore."""
    raise click.ClickException(
        f"tier {action}: this version keeps all records on the brokers' volumes; there is no bucket to work on"
    )
