"""`strandline tier restore`: from a bucket to a cluster that starts with what was in it (design 7.3, docs/operations.md).

The order makes an interruption harmless: the new cluster's id, then segments, pages and manifests below its prefix, then
the snapshots of group offsets, and only then the objects by which brokers learn of partitions.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

import click

from strandline_broker.cluster.cluster_settings import InvalidClusterConfig
from strandline_broker.cluster.store import StoreError
from strandline_broker.coordinator.partitioning import partition_for
from strandline_operator.cli import restore_output, restore_target
from strandline_operator.cli.batch_check import BatchCheck
from strandline_operator.cli.restore_target import DEFAULT_BROKERS, Identity, Target, TargetError
from strandline_operator.cli.restored_objects import RestoredObjects, make_objects, tiers
from strandline_operator.cli.tier_bucket import BucketChoice, opened
from strandline_operator.validation import ManifestError
from strandline_tiered.bucket_reads import clusters
from strandline_tiered.envelope import FormatError
from strandline_tiered.object_store import NoSuchObject, ObjectStore, SourceFailed
from strandline_tiered.restore_copying import BucketRestore, Progress
from strandline_tiered.restore_offsets import OffsetsPlan, plan_offsets
from strandline_tiered.restore_plan import Choice, TopicsPlan, plan_topics
from strandline_tiered.restore_reading import read_cluster

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

PROGRESS_INTERVAL_S = 2.0


@dataclass(frozen=True, slots=True)
class RestoreOptions:
    """What the user asked for. `brokers`: None for as many as the Cluster says. `deep`: read every copy back."""

    source: UUID
    choice: Choice
    brokers: int | None
    dry_run: bool
    deep: bool


@dataclass(frozen=True, slots=True)
class Restore:
    """A restore that is planned, or done (`progress`)."""

    source: UUID
    target: str
    cluster_id: UUID
    topics: TopicsPlan
    offsets: OffsetsPlan
    progress: Progress | None = None


async def restore(
    bucket: BucketChoice,
    open_target: Callable[[], AbstractAsyncContextManager[Target]],
    options: RestoreOptions,
) -> Restore:
    """Plan, and unless it is a dry run carry out. Raises ClickException for all that stands in the way."""
    async with opened(bucket) as store, _told(options.source), open_target() as target:
        await restore_target.check_empty(target, options.source)
        identity = await restore_target.identify(target, options.source)
        return await _restore(store, target, identity, options)
    raise AssertionError("one of them raised")


async def _restore(
    store: ObjectStore, target: Target, identity: Identity, options: RestoreOptions
) -> Restore:
    found = await read_cluster(store, options.source)
    if not found:
        there = [str(one) async for one in clusters(store)]
        raise click.ClickException(
            f"there is no cluster {options.source} in the bucket; there {'are' if there else 'is none'}"
            f"{': ' if there else ''}{', '.join(there)}"
        )
    topics = plan_topics(found, target=identity.cluster_id, choice=options.choice, tiers=tiers)
    offsets = plan_offsets(
        found,
        topics.topics,
        target=identity.cluster_id,
        choice=options.choice,
        partition_of=partition_for,
        restored_at_ms=identity.restored_at_ms,
    )
    problems = (*topics.problems, *offsets.problems)
    if problems:
        raise click.ClickException(
            "\n".join((*problems, "nothing was restored; --leave-out TOPIC restores all but that topic"))
        )
    objects = await _objects(target, topics, offsets, options)
    planned = Restore(options.source, target.where, identity.cluster_id, topics, offsets)
    if options.dry_run:
        return planned
    await restore_target.settle(target, options.source, identity)
    copying = BucketRestore(store, log_check=BatchCheck if options.deep else None, changed=_Shown())
    await copying.topics(topics.topics)
    await copying.offsets(offsets)
    await restore_target.create_objects(target, objects)
    return Restore(
        options.source, target.where, identity.cluster_id, topics, offsets, progress=copying.progress
    )


async def _objects(
    target: Target, topics: TopicsPlan, offsets: OffsetsPlan, options: RestoreOptions
) -> RestoredObjects:
    cluster = await restore_target.read_cluster_object(target)
    brokers = options.brokers or (cluster.replicas if cluster is not None else DEFAULT_BROKERS)
    return make_objects(
        topics.topics,
        offsets,
        source=options.source,
        cluster=target.cluster,
        brokers=brokers,
        cluster_config=cluster.config if cluster is not None else None,
    )


@contextlib.asynccontextmanager
async def _told(source: UUID) -> AsyncIterator[None]:
    """Turn what stands in the way into words."""
    again = "run the same command again to go on"
    try:
        yield
    except TargetError as error:
        raise click.ClickException(str(error)) from error
    except (ManifestError, InvalidClusterConfig) as error:
        raise click.ClickException(f"the new cluster cannot have such a topic: {error}") from error
    except StoreError as error:
        raise click.ClickException(f"the cluster store: {error}; {again}") from error
    except FormatError as error:
        raise click.ClickException(
            f"{error}; see what else is damaged: strandline tier verify --deep --cluster {source}; --leave-out TOPIC "
            "restores all but a topic"
        ) from error
    except NoSuchObject as error:
        raise click.ClickException(
            f"{error} is gone: does the cluster {source} still run? Stop it, and {again}; if it does not run, see what is "
            f"damaged: strandline tier verify --cluster {source}"
        ) from error
    except SourceFailed as error:
        raise click.ClickException(f"the temporary directory cannot be used: {error}; {again}") from error


class _Shown:
    """Says on standard error how far a restore is, now and then."""

    def __init__(self) -> None:
        self._next_s = time.monotonic() + PROGRESS_INTERVAL_S

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if now >= self._next_s:
            self._next_s = now + PROGRESS_INTERVAL_S
            click.echo(restore_output.progress_line(progress), err=True)
