"""A controller without processes to supervise: `python -m tests.crash.lone_controller STORE_FILE`.

It runs over a cluster store that others use as well, until it is killed. Two controllers at once must be safe (design
invariant 2).
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time

from strandline_broker.cluster.sqlite_store import SqliteStore
from strandline_operator.cli.layout import CLUSTER_NAME
from strandline_operator.controller.loop import Controller


async def control(store_file: str) -> None:
    """Run a controller; it goes on until it is cancelled."""
    store = SqliteStore(store_file)
    try:
        await Controller(
            store,
            CLUSTER_NAME,
            monotonic=time.monotonic,
            now_ms=lambda: time.time_ns() // 1_000_000,
            notify=lambda notice: logging.getLogger(__name__).warning(
                "%s: %s", notice.reason, notice.message
            ),
        ).run()
    finally:
        await store.close()


def main() -> None:
    """Run from the command line."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    asyncio.run(control(sys.argv[1]))


if __name__ == "__main__":
    main()
