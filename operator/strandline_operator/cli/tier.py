"""`strandline tier`: reserved, and honest about it."""

from __future__ import annotations

import click


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("action", type=click.Choice(["ls", "verify", "scrub", "restore"]))
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def tier(action: str, arguments: tuple[str, ...]) -> None:
    """Look after tiered storage: list, verify, scrub, restore."""
    raise click.ClickException(
        f"tier {action}: not built yet; brokers look after their bucket themselves, and /v1/partitions tells what is in it"
    )
