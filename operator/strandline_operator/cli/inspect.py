"""`strandline topics`, `describe` and `status`: the objects that kubectl would show, from the embedded store."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

import click

from strandline_broker.cluster.internal_topics import INTERNAL_TOPICS
from strandline_broker.cluster.model import (
    CLUSTER,
    LEASE,
    MALFORMED,
    PARTITION_SET,
    TOPIC,
    BrokerLease,
    Object,
    PartitionSet,
)
from strandline_broker.cluster.sqlite_store import SqliteStore
from strandline_broker.cluster.store import NotFound
from strandline_operator.cli import summary
from strandline_operator.cli.layout import CLUSTER_NAME, DEFAULT_DATA_DIR, DataDir
from strandline_operator.cli.stored import open_store
from strandline_operator.validation.problems import did_you_mean

Command = Callable[..., Any]
_MAX_REASSIGNMENTS = 20


def _options(command: Command) -> Command:
    command = click.option(
        "--data-dir", type=click.Path(path_type=Path), default=DEFAULT_DATA_DIR, show_default=True
    )(command)
    return click.option(
        "-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True
    )(command)


@click.command()
@_options
def topics(output: str, data_dir: Path) -> None:
    """List topics."""

    async def show(store: SqliteStore) -> None:
        objects, _ = await store.list(TOPIC)
        if output == "json":
            _print_json({"apiVersion": "v1", "kind": "List", "items": objects})
        elif objects:
            now_ms = _now_ms()
            click.echo(
                summary.format_table(summary.TOPIC_COLUMNS, (summary.topic_row(o, now_ms) for o in objects))
            )
        else:
            click.echo(
                "no topics; make one with: strandline apply -f examples/topic.yaml, or with Kafka's tools",
                err=True,
            )

    _with_store(data_dir, show)


@click.command()
@_options
def status(output: str, data_dir: Path) -> None:
    """Show how the cluster is: brokers, partitions, and what is wrong."""

    async def show(store: SqliteStore) -> None:
        cluster = await _get(store, CLUSTER, CLUSTER_NAME)
        topic_objects, _ = await store.list(TOPIC)
        slices = await _slices(store)
        leases = summary.read_leases((await store.list(LEASE))[0])
        layout = DataDir(data_dir)
        running = layout.in_use()
        leads = summary.leads(slices)
        brokers = [_broker_row(layout, lease, leads, supervised=running) for lease in leases]
        found = {
            "running": running,
            "cluster": cluster,
            "brokers": [
                dict(zip(map(str.lower, summary.BROKER_COLUMNS), row, strict=True)) for row in brokers
            ],
            "topics": len(topic_objects),
            "withoutTopicObject": summary.without_topic_object(slices, map(_topic_name, topic_objects)),
            "deleted": sorted({s.topic_name for s in slices if s.deleting}),
            "reassignments": summary.reassignments(slices),
            "problems": summary.problems([cluster, *topic_objects]),
        }
        if output == "json":
            _print_json(found)
        else:
            _print_status(found, brokers)

    _with_store(data_dir, show)


def _print_status(found: dict[str, Any], brokers: list[summary.Row]) -> None:
    shown = found["cluster"].get("status") or {}
    ready = summary.condition(shown, "Ready").get("status", "Unknown")
    if not found["running"]:
        click.echo("the cluster is not running; this is how it was. Start it with: strandline dev")
    click.echo(
        f"cluster {CLUSTER_NAME}: ready {ready}, {found['topics']} topics, {shown.get('partitions', 0)} partitions, "
        f"{shown.get('underReplicated', 0)} under-replicated, {shown.get('underMinIsr', 0)} under min.insync.replicas, "
        f"{shown.get('offline', 0)} offline, {shown.get('reassigning', 0)} being reassigned"
    )
    click.echo(summary.format_table(summary.BROKER_COLUMNS, brokers))
    bucket = summary.bucket_line(shown)
    if bucket:
        click.echo(bucket)
    if found["withoutTopicObject"]:
        click.echo(
            f"without a Topic object (re-apply one to manage it): {', '.join(found['withoutTopicObject'])}"
        )
    if found["deleted"]:
        click.echo(f"deleted, waiting for the end of the grace period: {', '.join(found['deleted'])}")
    for line in found["problems"]:
        click.echo(line)
    moving = found["reassignments"]
    for line in moving[:_MAX_REASSIGNMENTS]:
        click.echo(f"reassigning {line}")
    if len(moving) > _MAX_REASSIGNMENTS:
        click.echo(f"and {len(moving) - _MAX_REASSIGNMENTS} more (strandline status -o json shows all)")


def _broker_row(
    layout: DataDir, lease: BrokerLease, leads: Mapping[int, int], *, supervised: bool
) -> summary.Row:
    process = layout.pid_file(lease.broker_id).exists()
    return summary.broker_row(lease, leads.get(lease.broker_id, 0), supervised=supervised, process=process)


@click.command()
@click.argument("what", nargs=-1, metavar="[KIND] NAME")
@_options
def describe(what: tuple[str, ...], output: str, data_dir: Path) -> None:
    """Show everything about an object: `describe orders`, `describe topic orders`, `describe broker 0`, `describe cluster`.

    NAME may be the name of the Topic object or the one that Kafka clients use.
    """
    kind, name = _parse_target(what)

    async def show(store: SqliteStore) -> None:
        if kind == "broker":
            await _describe_broker(store, DataDir(data_dir), name, output)
        elif kind == "cluster":
            _describe_object(await _get(store, CLUSTER, name), [], output)
        else:
            await _describe_topic(store, name, output)

    _with_store(data_dir, show)


def _parse_target(what: tuple[str, ...]) -> tuple[str, str]:
    parts = tuple(what[0].split("/", 1)) if len(what) == 1 and "/" in what[0] else what
    kinds = ("topic", "cluster", "broker")
    if len(parts) == 2:
        kind = parts[0].lower().removesuffix("s")
        if kind not in kinds:
            raise click.UsageError(
                f"there is no kind {parts[0]!r}{did_you_mean(kind, kinds)}; use topic, cluster or broker"
            )
        return kind, parts[1]
    if parts in ((), ("cluster",)):
        return "cluster", CLUSTER_NAME
    if len(parts) == 1:
        return "topic", parts[0]
    raise click.UsageError("describe takes [KIND] NAME")


async def _describe_topic(store: SqliteStore, name: str, output: str) -> None:
    objects, _ = await store.list(TOPIC)
    slices = [slice_ for slice_ in await _slices(store) if not slice_.deleting]
    obj = next((o for o in objects if name in (o["metadata"]["name"], _topic_name(o))), None)
    topic_name = _topic_name(obj) if obj is not None else name
    parts = [slice_ for slice_ in slices if slice_.topic_name == topic_name]
    if obj is None and not parts:
        known = {_topic_name(o) for o in objects} | {slice_.topic_name for slice_ in slices}
        raise click.ClickException(
            f"there is no topic {name}{did_you_mean(name, known)}; list them with: strandline topics"
        )
    if obj is None:
        obj = {"kind": "Topic", "metadata": {"name": name}, "spec": {}, "status": {}}
        why = "it was deleted with policy Retain; re-apply it to manage it"
        if name in INTERNAL_TOPICS:
            why = "the cluster made it for itself"
        click.echo(f"{name} has no Topic object: {why}", err=True)
    _describe_object(obj, parts, output)


async def _describe_broker(store: SqliteStore, layout: DataDir, name: str, output: str) -> None:
    objects, _ = await store.list(LEASE)
    for obj in objects:
        lease = next(iter(summary.read_leases([obj])), None)
        if lease is not None and name in (str(lease.broker_id), lease.name):
            if output == "json":
                _print_json(obj)
                return
            leads = summary.leads(await _slices(store))
            row = _broker_row(layout, lease, leads, supervised=layout.in_use())
            for column, value in zip(summary.BROKER_COLUMNS, row, strict=True):
                click.echo(f"{column.capitalize() + ':':14}{value}")
            click.echo(f"{'Incarnation:':14}{lease.incarnation or '(stopped)'}")
            click.echo(f"{'Generation:':14}{lease.generation}")
            click.echo(f"{'Renewed:':14}{lease.renew_time}")
            return
    raise click.ClickException(f"there is no broker {name}; list them with: strandline status")


def _describe_object(obj: Object, slices: list[PartitionSet], output: str) -> None:
    if output == "json":
        parts = {
            "partitionSets": [slice_.to_object() for slice_ in slices],
            "partitions": summary.partition_objects(slices),
        }
        _print_json({**obj, **parts} if slices else obj)
        return
    import yaml

    head = {
        key: obj["metadata"][key] for key in ("name", "labels", "annotations") if obj["metadata"].get(key)
    }
    shown = {"kind": obj["kind"], "metadata": head, "spec": obj["spec"]}
    shown["status"] = {key: value for key, value in (obj.get("status") or {}).items() if key != "conditions"}
    click.echo(yaml.safe_dump(shown, sort_keys=False, allow_unicode=True).rstrip())
    for entry in (obj.get("status") or {}).get("conditions") or ():
        click.echo(f"{entry['type']}={entry['status']} {entry['reason']}: {entry['message']}".rstrip(": "))
    if slices:
        click.echo("configuration in effect (what is not listed has Kafka's default):")
        for key, value in sorted(slices[0].config.items()):
            click.echo(f"  {key}={value}")
        click.echo(summary.format_table(summary.PARTITION_COLUMNS, summary.partition_rows(slices)))


# -- helpers --------------------------------------------------------------------------------------------------------


def _with_store(data_dir: Path, show: Callable[[SqliteStore], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        async with open_store(data_dir) as store:
            await show(store)

    asyncio.run(run())


async def _get(store: SqliteStore, kind: str, name: str) -> Object:
    try:
        return await store.get(kind, name)
    except NotFound:
        raise click.ClickException(f"there is no {kind} {name}") from None


async def _slices(store: SqliteStore) -> list[PartitionSet]:
    found = []
    for obj in (await store.list(PARTITION_SET))[0]:
        try:
            found.append(PartitionSet.from_object(obj))
        except MALFORMED as error:
            click.echo(f"PartitionSet {obj['metadata']['name']} cannot be read: {error!r}", err=True)
    return found


def _topic_name(obj: Object) -> str:
    name: str = obj["spec"].get("topicName") or obj["metadata"]["name"]
    return name


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _print_json(value: Any) -> None:
    import orjson

    click.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())
