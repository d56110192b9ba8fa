"""Opens the store of a `strandline dev` data directory for the commands that look into it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import click

from strandline_broker.cluster.sqlite_store import SqliteStore
from strandline_broker.cluster.store import Unavailable
from strandline_operator.cli.layout import DataDir


@contextlib.asynccontextmanager
async def open_store(data_dir: Path) -> AsyncIterator[SqliteStore]:
    """Yield the store. Raises ClickException when there is none, or it cannot be read."""
    layout = DataDir(data_dir)
    if not layout.store_file.exists():
        raise click.ClickException(
            f"there is no cluster in {data_dir}; start one with: strandline dev --data-dir {data_dir}"
        )
    store = SqliteStore(layout.store_file)
    try:
        yield store
    except Unavailable as error:
        raise click.ClickException(f"{layout.store_file} cannot be read: {error}") from error
    finally:
        await store.close()
