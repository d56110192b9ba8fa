"""Stands in for a broker process: keeps a Lease as a real one does, and serves nothing.

`fake_broker.py [--fail CODE] broker --set key=value ...`
"""

from __future__ import annotations

import asyncio
import random
import signal
import sys
import uuid

from strandline_broker.cluster.lease_keeper import LeaseKeeper
from strandline_broker.cluster.model import BrokerLease, BrokerPhase, Endpoint
from strandline_broker.cluster.sqlite_store import SqliteStore


def main() -> int:
    if sys.argv[1] == "--fail":
        print("fake broker: listeners: port 99999 does not exist", file=sys.stderr)  # noqa: T201
        return int(sys.argv[2])
    settings = dict(argument.split("=", 1) for argument in sys.argv[1:] if "=" in argument)
    return asyncio.run(serve(settings))


async def serve(settings: dict[str, str]) -> int:
    end = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, end.set)
    store = SqliteStore(settings["store"].removeprefix("sqlite:"))
    host, _, port = settings["advertised_listeners"].partition("://")[2].rpartition(":")
    lease = BrokerLease(
        int(settings["broker_id"]),
        uuid.uuid4().hex[:12],
        7,
        {"PLAINTEXT": Endpoint(host, int(port))},
        cluster=settings["cluster_name"],
        lease_duration_ms=int(settings.get("lease_duration_ms", 10_000)),
    )
    renew_ms = int(settings.get("lease_renew_ms", 3_000))
    keeper = LeaseKeeper(
        store, lease, renew_interval_ms=renew_ms, on_lost=lambda _: end.set(), rng=random.Random()
    )
    await keeper.acquire()
    task = asyncio.create_task(keeper.run())
    await keeper.set_state(BrokerPhase.RUNNING)
    await end.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await keeper.release()
    await store.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
