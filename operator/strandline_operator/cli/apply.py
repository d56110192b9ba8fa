"""`strandline apply`: manifests into the store of a `strandline dev` cluster, running or not."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from strandline_operator.cli.layout import DEFAULT_DATA_DIR
from strandline_operator.cli.stored import open_store

if TYPE_CHECKING:
    from strandline_operator.validation import Document


@click.command()
@click.option(
    "-f",
    "--filename",
    "path",
    required=True,
    type=click.Path(path_type=Path),
    help="Manifest file or folder.",
)
@click.option("--data-dir", type=click.Path(path_type=Path), default=DEFAULT_DATA_DIR, show_default=True)
def apply(path: Path, data_dir: Path) -> None:
    """Apply manifests: create what is missing, change what differs. Nothing is applied if any manifest is invalid."""
    from strandline_operator.validation import load_path

    try:
        content = load_path(path)
    except FileNotFoundError as error:
        raise click.ClickException(str(error)) from error
    if content.problems:
        raise click.ClickException("\n".join(map(str, content.problems)))
    for line in content.foreign:
        click.echo(f"skipped {line}: not a strandline.io object", err=True)
    if not content.documents:
        raise click.ClickException(f"{path} holds no strandline.io manifests")
    asyncio.run(_apply_all(data_dir, content.documents))


async def _apply_all(data_dir: Path, documents: Sequence[Document]) -> None:
    from strandline_broker.cluster.store import StoreError
    from strandline_operator.cli.applying import apply_document
    from strandline_operator.validation import ManifestError

    refused: list[str] = []
    async with open_store(data_dir) as store:
        for document in documents:
            kind, name = document.key
            try:
                outcome = await apply_document(store, document)
            except (ManifestError, StoreError) as error:
                refused.append(str(error))
                continue
            click.echo(f"{kind.lower()}/{name} {outcome}")
    if refused:
        raise click.ClickException("\n".join(refused))
