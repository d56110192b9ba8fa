"""`strandline dev`: a whole cluster on one machine, the embedded default.

This module starts the broker processes before it imports anything heavy, and only then hands over to `dev_session`: the
brokers recover their logs while the supervisor imports what it needs.
"""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import click

from strandline_operator.cli.broker import SUPERVISOR_VARIABLE
from strandline_operator.cli.layout import (
    CLUSTER_NAME,
    DEFAULT_DATA_DIR,
    INTERNAL_LISTENER,
    DataDir,
    LayoutError,
    choose_ports,
)
from strandline_operator.cli.processes import BrokerProcess, broker_command, stop_orphans

# The listener between brokers: on a free port, which others learn from the Lease.
_WILDCARDS = ("", "0.0.0.0", "::")  # noqa: S104 - recognised, not bound to
_S3 = "s3://"
_LISTENER = re.compile(r"([A-Za-z0-9_-]+)://[^/\s,]+:([0-9]{1,5})")
# Settings that the other options decide, and the option to use instead.
_RESERVED = {
    "broker_id": "--brokers",
    "cluster_name": "nothing: it is always dev",
    "cluster_id": "nothing: the controller gives it, once",
    "data_dir": "--data-dir",
    "store": "--data-dir",
    "listeners": "--host, --port and --listener",
    "advertised_listeners": "--advertise",
    "inter_broker_listener_name": "nothing: it is always INTERNAL",
    "inter_broker_token_file": "--data-dir",
    "http_host": "--host",
    "http_port": "--port",
    "flush": "--flush",
    "tiering_bucket": "--bucket",
    "tiering_endpoint_url": "--endpoint-url",
    "rack": "--racks",
    "broker_rack": "--racks",
}


@dataclass(frozen=True, slots=True)
class DevOptions:
    """What the user asked for. `addresses` are the brokers' (Kafka port, HTTP port)."""

    brokers: int
    host: str
    advertise: str
    data_dir: DataDir
    manifests: Path | None
    flush: str
    listeners: tuple[str, ...]
    assignments: tuple[str, ...]
    plain: bool
    ports: list[tuple[int, int]]
    resumed: bool
    racks: tuple[str, ...] = ()
    bucket: str = ""
    """As brokers are told: `s3://NAME[/PREFIX]`, or `dir:PATH`."""
    endpoint_url: str | None = None

    @property
    def tiering(self) -> dict[str, str]:
        """What the Cluster says of its bucket; a directory has no name that it could say."""
        if not self.bucket.startswith(_S3):
            return {"bucket": "directory"}
        name, _, prefix = self.bucket.removeprefix(_S3).partition("/")
        parts = {"bucket": name, "prefix": prefix.strip("/"), "endpointUrl": self.endpoint_url or ""}
        return {key: value for key, value in parts.items() if value}

    @property
    def bootstrap(self) -> str:
        """What Kafka clients connect to."""
        return ",".join(f"{_bracketed(self.advertise)}:{kafka}" for kafka, _ in self.ports)


@click.command()
@click.option(
    "--brokers", type=click.IntRange(1, 100), default=3, show_default=True, help="Number of brokers."
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=9092,
    show_default=True,
    help="Kafka port of broker 0; broker i has PORT+i, and its HTTP port is 1000 higher. 0 picks free ports.",
)
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=DEFAULT_DATA_DIR,
    show_default=True,
    help="Where everything is kept; starting again with the same folder resumes.",
)
@click.option(
    "--manifests",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of Cluster and Topic manifests to apply and to follow.",
)
@click.option(
    "--bucket",
    metavar="DIR|s3://NAME[/PREFIX]",
    help="Where sealed segments go; default: bucket/ in --data-dir. Always the same one for the same --data-dir.",
)
@click.option(
    "--endpoint-url", metavar="URL", help="Address of an S3-compatible server, with --bucket s3://..."
)
@click.option(
    "--advertise", metavar="HOST", help="Host that clients are told to connect to; default: --host."
)
@click.option(
    "--listener",
    "listeners",
    multiple=True,
    metavar="NAME://HOST:PORT",
    help="One more listener, advertised as it is written; broker i has PORT+i.",
)
@click.option(
    "--flush",
    type=click.Choice(["Fsync", "Replicated"]),
    default="Fsync",
    show_default=True,
    help="Acknowledge records when the disk has them, or from memory.",
)
@click.option(
    "--racks",
    metavar="RACK,...",
    default="",
    help="Racks that the brokers are in, in turn: replicas are spread over them.",
)
@click.option(
    "--config", "config", multiple=True, metavar="KEY=VALUE", help="Broker setting, or default for topics."
)
@click.option("--plain", is_flag=True, help="No live table.")
def dev(
    brokers: int,
    host: str,
    port: int,
    data_dir: Path,
    manifests: Path | None,
    bucket: str | None,
    endpoint_url: str | None,
    advertise: str | None,
    listeners: tuple[str, ...],
    flush: str,
    racks: str,
    config: tuple[str, ...],
    plain: bool,
) -> None:
    """Run a cluster on this machine, without Kubernetes.

    Prints `ready bootstrap=HOST:PORT,...` when every broker serves. Removing a manifest while this runs deletes its
    object, as GitOps with pruning would; whether its records go too is what its deletionPolicy says.
    """
    _check_bucket(bucket, endpoint_url)
    _check_assignments(config)
    _check_listeners(listeners)
    layout = DataDir(data_dir)
    processes: list[BrokerProcess] = []
    try:
        layout.acquire()
        stop_orphans(layout, _note)
        layout.ensure_token()
        options = DevOptions(
            brokers=brokers,
            host=host,
            advertise=advertise or ("127.0.0.1" if host in _WILDCARDS else host),
            data_dir=layout,
            manifests=manifests,
            flush=flush,
            listeners=listeners,
            racks=racks_of(racks),
            assignments=config,
            plain=plain or not sys.stdout.isatty(),
            ports=choose_ports(host, port, brokers),
            resumed=layout.store_file.exists(),
            bucket=bucket_of(bucket, layout),
            endpoint_url=endpoint_url,
        )
        former = former_incarnations(layout) if options.resumed else {}
        _warn_of_missing_brokers(options)
        processes = make_processes(options)
        for process in processes:
            process.start()
        from strandline_operator.cli.dev_session import run_session

        code = run_session(options, processes, former)
    except LayoutError as error:
        raise click.ClickException(str(error)) from error
    finally:
        for process in processes:
            process.signal(9)  # none runs any more after an orderly end
        layout.release()
    sys.exit(code)


def make_processes(options: DevOptions) -> list[BrokerProcess]:
    """Return the brokers, not started."""
    environment = {**os.environ, SUPERVISOR_VARIABLE: str(os.getpid())}
    settings = broker_settings(options.assignments)
    processes = []
    for broker_id, (kafka, http) in enumerate(options.ports):
        directory = options.data_dir.broker_dir(broker_id)
        more = "".join(f",{listener_of(listener, broker_id)}" for listener in options.listeners)
        assignments = [
            f"broker_id={broker_id}",
            f"cluster_name={CLUSTER_NAME}",
            f"data_dir={directory / 'data'}",
            f"store=sqlite:{options.data_dir.store_file}",
            f"listeners=PLAINTEXT://{_bracketed(options.host)}:{kafka}{more},{INTERNAL_LISTENER}://127.0.0.1:0",
            f"advertised_listeners=PLAINTEXT://{_bracketed(options.advertise)}:{kafka}{more}",
            f"inter_broker_listener_name={INTERNAL_LISTENER}",
            f"inter_broker_token_file={options.data_dir.token_file}",
            f"http_host={options.host or '0.0.0.0'}",  # noqa: S104 - the user's choice
            f"http_port={http}",
            f"flush={options.flush}",
            f"tiering_bucket={options.bucket}",
            # The disk is the machine's, most likely with the bucket on it: how full it is says nothing of these brokers.
            "tiering_disk_throttle_percent=100",
            "tiering_disk_refuse_percent=100",
            *([f"tiering_endpoint_url={options.endpoint_url}"] if options.endpoint_url else []),
            *([f"rack={options.racks[broker_id % len(options.racks)]}"] if options.racks else []),
            *settings,
        ]
        processes.append(BrokerProcess(broker_id, broker_command(assignments), options.data_dir, environment))
    return processes


def bucket_of(bucket: str | None, layout: DataDir) -> str:
    """Return what `--bucket` means, as brokers are told it."""
    if bucket is not None and bucket.startswith(_S3):
        return bucket
    return f"dir:{Path(bucket).absolute() if bucket is not None else layout.bucket_dir}"


def racks_of(text: str) -> tuple[str, ...]:
    """Return the racks that `--racks` names. Raises UsageError for one without a name."""
    racks = tuple(rack.strip() for rack in text.split(",")) if text.strip() else ()
    if "" in racks:
        raise click.UsageError(f"--racks {text}: names a rack without a name")
    return racks


def listener_of(listener: str, broker_id: int) -> str:
    """Return what `--listener` means for one broker: the same name and host, the port further up."""
    address, _, port = listener.rpartition(":")
    return f"{address}:{int(port) + broker_id}"


def broker_settings(assignments: tuple[str, ...]) -> list[str]:
    """Return those `key=value` that brokers take; the others are defaults for topics."""
    if not assignments:
        return []
    topics = topic_defaults(assignments)
    return [a for a in assignments if _normal(a.partition("=")[0]) not in {_normal(key) for key in topics}]


def topic_defaults(assignments: tuple[str, ...]) -> dict[str, str]:
    """Return the `key=value` that belong into the Cluster's spec.config: defaults for topics, and the like."""
    if not assignments:
        return {}
    from strandline_broker.cluster.cluster_settings import CLUSTER_SETTINGS
    from strandline_broker.cluster.topic_config import TOPIC_CONFIGS

    known = {_normal(name): name for name in (*TOPIC_CONFIGS, *CLUSTER_SETTINGS)}
    pairs = (assignment.partition("=") for assignment in assignments)
    return {known[_normal(key)]: value for key, _, value in pairs if _normal(key) in known}


def former_incarnations(layout: DataDir) -> dict[int, str]:
    """Return what the Leases said before any broker was started: those processes have ended.

    It is read before the first broker starts; a broker that found its way into this list could never lead again.
    """
    import asyncio

    from strandline_broker.cluster.model import LEASE
    from strandline_broker.cluster.sqlite_store import SqliteStore
    from strandline_broker.cluster.store import StoreError
    from strandline_operator.cli.summary import read_leases

    async def read() -> dict[int, str]:
        store = SqliteStore(layout.store_file)
        try:
            objects, _ = await store.list(LEASE)
        finally:
            await store.close()
        return {lease.broker_id: lease.incarnation for lease in read_leases(objects)}

    try:
        return asyncio.run(read())
    except StoreError as error:
        raise LayoutError(f"{layout.store_file} cannot be read: {error}") from error


def _check_bucket(bucket: str | None, endpoint_url: str | None) -> None:
    if endpoint_url is not None and not (bucket or "").startswith("s3://"):
        raise click.UsageError("--endpoint-url needs --bucket s3://NAME[/PREFIX]")
    if bucket is not None and bucket.startswith(_S3) and not bucket.removeprefix(_S3).strip("/"):
        raise click.UsageError(f"--bucket {bucket}: names no bucket")


def _check_assignments(assignments: tuple[str, ...]) -> None:
    for assignment in assignments:
        key, equals, _ = assignment.partition("=")
        if not equals or not key.strip():
            raise click.UsageError(f"--config {assignment}: is not KEY=VALUE")
        if _normal(key) in _RESERVED:
            raise click.UsageError(f"--config {key}: is decided here by {_RESERVED[_normal(key)]}")


def _check_listeners(listeners: tuple[str, ...]) -> None:
    for listener in listeners:
        found = _LISTENER.fullmatch(listener)
        if found is None:
            raise click.UsageError(f"--listener {listener}: is not NAME://HOST:PORT")
        if not 1 <= int(found[2]) <= 65535:
            raise click.UsageError(f"--listener {listener}: {found[2]} is no port")
        if found[1].upper() == INTERNAL_LISTENER:
            raise click.UsageError(
                f"--listener {listener}: {INTERNAL_LISTENER} is the listener between brokers"
            )
        if found[1].upper() == "PLAINTEXT":
            raise click.UsageError(f"--listener {listener}: PLAINTEXT is the listener of --host and --port")


def _warn_of_missing_brokers(options: DevOptions) -> None:
    missing = [broker_id for broker_id in options.data_dir.broker_ids() if broker_id >= options.brokers]
    if missing:
        _note(
            f"{options.data_dir.path} also has the data of broker {', '.join(map(str, missing))}: partitions that are only "
            f"there are offline, others lack a replica, until you start with --brokers {missing[-1] + 1}"
        )


def _normal(key: str) -> str:
    return key.strip().lower().replace(".", "_").replace("-", "_")


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _note(text: str) -> None:
    click.echo(text, err=True)
