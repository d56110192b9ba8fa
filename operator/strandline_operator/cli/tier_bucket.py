"""Which bucket the commands of `strandline tier` look into, and how they say that it does not answer."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from strandline_operator.cli.layout import DEFAULT_DATA_DIR, DataDir

if TYPE_CHECKING:
    from strandline_tiered.object_store import ObjectStore

Command = Callable[..., Any]
_S3 = "s3://"
_DIRECTORY = "dir:"


@dataclass(frozen=True, slots=True)
class BucketChoice:
    """What the options say. Without `bucket` it is the one of a `strandline dev` directory."""

    bucket: str | None
    endpoint_url: str | None
    region: str | None
    data_dir: Path

    @property
    def name(self) -> str:
        """The bucket, as `open_bucket` takes it. Raises UsageError."""
        bucket = self.bucket
        if bucket is None:
            bucket = str(DataDir(self.data_dir).bucket_dir)
        is_s3 = bucket.startswith(_S3)
        if is_s3 and not bucket.removeprefix(_S3).strip("/"):
            raise click.UsageError(f"--bucket {bucket}: names no bucket")
        if self.endpoint_url is not None and not is_s3:
            raise click.UsageError("--endpoint-url needs --bucket s3://NAME[/PREFIX]")
        return bucket if is_s3 else str(Path(bucket.removeprefix(_DIRECTORY)).absolute())


def bucket_options(command: Command) -> Command:
    """Give a command the options of a bucket; it gets them as one argument, `choice`."""

    @functools.wraps(command)
    def wrapped(
        *, bucket: str | None, endpoint_url: str | None, region: str | None, data_dir: Path, **others: Any
    ) -> Any:
        return command(choice=BucketChoice(bucket, endpoint_url, region, data_dir), **others)

    for option in (
        click.option(
            "--region", envvar="STRANDLINE_TIERING_REGION", metavar="NAME", help="Region of the bucket."
        ),
        click.option(
            "--endpoint-url",
            envvar="STRANDLINE_TIERING_ENDPOINT_URL",
            metavar="URL",
            help="Address of an S3-compatible server, with --bucket s3://...",
        ),
        click.option(
            "--bucket",
            envvar="STRANDLINE_TIERING_BUCKET",
            metavar="DIR|s3://NAME[/PREFIX]",
            help="The bucket, as brokers are told it; default: bucket/ in --data-dir.",
        ),
        click.option(
            "--data-dir",
            "--dir",
            "data_dir",
            type=click.Path(file_okay=False, path_type=Path),
            default=DEFAULT_DATA_DIR,
            show_default=True,
            help="Directory of `strandline dev`.",
        ),
    ):
        wrapped = option(wrapped)
    return wrapped


@contextlib.asynccontextmanager
async def opened(choice: BucketChoice) -> AsyncIterator[ObjectStore]:
    """Yield the bucket. Raises ClickException for one that is not there or does not answer."""
    from strandline_tiered.object_store import Refused, Unavailable
    from strandline_tiered.open_store import open_bucket

    name = choice.name
    if not name.startswith(_S3) and not _is_directory(name):
        raise click.ClickException(f"there is no bucket in {name}; name one with --bucket")
    try:
        bucket = open_bucket(name, endpoint_url=choice.endpoint_url, region=choice.region)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    try:
        yield bucket.store
    except Refused as error:
        raise click.ClickException(f"the bucket {bucket.name} refuses: {error}") from error
    except Unavailable as error:
        raise click.ClickException(f"the bucket {bucket.name} does not answer: {error}") from error
    finally:
        await bucket.store.close()


def _is_directory(name: str) -> bool:
    return Path(name).is_dir()
