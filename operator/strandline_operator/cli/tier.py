"""`strandline tier`: looks into the bucket of tiered storage, and rebuilds a lost cluster from it. Needs no broker."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any
from uuid import UUID

import click

from strandline_operator.cli.tier_bucket import BucketChoice, bucket_options, opened

if TYPE_CHECKING:
    from strandline_tiered.verify import Finding, Totals


@click.group()
def tier() -> None:
    """Look into the bucket of tiered storage; restore a lost cluster from it. Needs no broker."""


_cluster = click.option("--cluster", "cluster_id", type=click.UUID, metavar="ID", help="Only this cluster.")
_topic = click.option("--topic", metavar="NAME", help="Only this topic.")
_json = click.option("--json", "as_json", is_flag=True, help="For programs.")


@tier.command("ls")
@bucket_options
@_cluster
@_topic
@_json
def list_bucket(choice: BucketChoice, cluster_id: UUID | None, topic: str | None, as_json: bool) -> None:
    """List clusters, topics and partitions: offsets, segments, bytes, times, manifests, claims."""
    from strandline_operator.cli import tier_output
    from strandline_tiered.overview import TopicOverview, read_overview

    async def read() -> list[TopicOverview]:
        async with opened(choice) as store:
            return await read_overview(store, cluster_id=cluster_id, topic=topic)

    topics = asyncio.run(read())
    if as_json:
        _print_json(tier_output.overview_object(topics))
        return
    for line in tier_output.overview_lines(topics):
        click.echo(line)
    if not topics:
        click.echo("nothing of ours is there", err=True)


@tier.command()
@bucket_options
@_cluster
@_topic
@click.option("--deep", is_flag=True, help="Read every segment; check every block and every batch.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line: findings, at last the totals.")
def verify(
    choice: BucketChoice, cluster_id: UUID | None, topic: str | None, deep: bool, as_json: bool
) -> None:
    """Check that what manifests refer to is there and whole. Exit code 1 if it is not.

    Every manifest, page, topic manifest and snapshot of group offsets is read; of segments the size and the footer, with
    --deep all of it. Objects that no manifest names are listed, and are no damage: leaders put segments down before they
    publish them. It may run beside brokers.
    """
    from strandline_operator.cli.batch_check import BatchCheck
    from strandline_tiered.verify import Verifier

    def report(finding: Finding) -> None:
        if as_json:
            _print_json_line(finding._asdict())
        else:
            click.echo(f"{'DAMAGE' if finding.is_damage else 'note'} {finding.key}: {finding.meaning}")

    async def run() -> Totals:
        async with opened(choice) as store:
            verifier = Verifier(store, report, log_check=BatchCheck if deep else None)
            return await verifier.run(cluster_id=cluster_id, topic=topic)

    totals = asyncio.run(run())
    if as_json:
        from dataclasses import asdict

        _print_json_line(asdict(totals))
    else:
        click.echo(
            f"{totals.topics} topics, {totals.partitions} partitions: {totals.manifests} manifests, {totals.pages} pages, "
            f"{totals.segments} segments, {totals.offsets} snapshots of group offsets; {totals.unreferenced} objects that "
            f"no manifest names; {totals.damaged} damaged"
        )
    sys.exit(1 if totals.damaged else 0)


@tier.command()
@bucket_options
@_cluster
@_topic
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def scrub(choice: BucketChoice, cluster_id: UUID | None, topic: str | None, as_json: bool) -> None:
    """Report what no manifest needs. Nothing is deleted: that is for leaders.

    A leader collects such objects after it wrote a manifest of its own and saw no successor; every broker does so for
    the partitions that it leads, each tiering_scrub_interval_ms. Nobody else can tell garbage from what is about to be
    published.
    """
    from strandline_operator.cli.tier_scrub import report_leftovers

    async def run() -> tuple[int, int]:
        async with opened(choice) as store:
            return await report_leftovers(
                store,
                _print_json_line if as_json else _print_leftover,
                cluster_id=cluster_id,
                topic=topic,
            )

    count, total = asyncio.run(run())
    if not as_json:
        from strandline_operator.cli.tier_output import size

        click.echo(
            f"{count} objects, {size(total)}, that no manifest needs; nothing was deleted: leaders collect them"
        )


@tier.command()
@bucket_options
@click.option(
    "--from",
    "source",
    type=click.UUID,
    metavar="ID",
    required=True,
    help="Id of the lost cluster, as `strandline tier ls` shows it. What is below it in the bucket is only read.",
)
@click.option(
    "--namespace", metavar="NAME", help="Restore into Kubernetes, into this namespace, instead of --data-dir."
)
@click.option("--cluster-name", metavar="NAME", help="Restore into Kubernetes, for the Cluster of this name.")
@click.option(
    "--topic",
    "topics",
    multiple=True,
    metavar="NAME",
    help="Only this topic (NAME, or NAME-ID); may be repeated.",
)
@click.option(
    "--leave-out", "left_out", multiple=True, metavar="NAME", help="All but this topic; may be repeated."
)
@click.option(
    "--brokers",
    type=click.IntRange(1, 10_000),
    help="Brokers that replicas are placed on; default: as the Cluster says, or 3.",
)
@click.option("--deep", is_flag=True, help="Read every copy back; check every block and every batch.")
@click.option("--dry-run", is_flag=True, help="Show what would be restored; write nothing.")
@_json
def restore(
    choice: BucketChoice,
    source: UUID,
    namespace: str | None,
    cluster_name: str | None,
    topics: tuple[str, ...],
    left_out: tuple[str, ...],
    brokers: int | None,
    deep: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Rebuild a lost cluster from its bucket: topics, configurations, records, committed offsets.

    The new cluster must be empty, and not have been started. It gets an id of its own; objects are copied below that, by
    the server where it can. Interrupted, it goes on when it is run again. Afterwards start the cluster, with the same
    bucket: partitions begin where the bucket's part ends. Stop the old cluster first.
    """
    from strandline_operator.cli import restore_output
    from strandline_operator.cli.restore_target import dev_target, kubernetes_target
    from strandline_operator.cli.tier_restore import Restore, RestoreOptions
    from strandline_operator.cli.tier_restore import restore as carry_out
    from strandline_tiered.restore_plan import Choice

    in_kubernetes = namespace is not None or cluster_name is not None
    if in_kubernetes and (cluster_name is None or choice.bucket is None):
        raise click.UsageError("Kubernetes needs --cluster-name and --bucket")
    options = RestoreOptions(source, Choice(frozenset(topics), frozenset(left_out)), brokers, dry_run, deep)

    async def run() -> Restore:
        if in_kubernetes:
            assert cluster_name is not None
            return await carry_out(choice, lambda: kubernetes_target(namespace, cluster_name), options)
        return await carry_out(choice, lambda: dev_target(choice.data_dir, dry_run=dry_run), options)

    result = asyncio.run(run())
    if as_json:
        _print_json(restore_output.restore_object(result))
        return
    for line in restore_output.restore_lines(result):
        click.echo(line)


def _print_leftover(found: dict[str, Any]) -> None:
    waits = f"waits for {found['waitsFor']}" if found["waitsFor"] else "for the next scrub of its leader"
    click.echo(f"{found['key']} ({found['size']} bytes): {waits}")


def _print_json(value: Any) -> None:
    import orjson

    click.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())


def _print_json_line(value: Any) -> None:
    import orjson

    click.echo(orjson.dumps(value).decode())
