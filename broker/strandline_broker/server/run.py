"""The broker's process: logging, memory, signals, the real seams, and the exit code.

Called by `strandline broker`. Everything that can be tested without a process is in `server.broker`.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import importlib
import logging
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from strandline_broker.cluster.sqlite_store import SqliteStore
from strandline_broker.cluster.store import StoreError
from strandline_broker.log.identity import IdentityError
from strandline_broker.seams.clock import SystemClock
from strandline_broker.seams.local_disk import LocalDisk
from strandline_broker.seams.local_network import LocalNetwork
from strandline_broker.seams.randomness import system_random
from strandline_broker.seams.threads import SystemThreads
from strandline_broker.server.broker import Broker
from strandline_broker.server.volume import read_boot_id
from strandline_broker.wire import cold

if TYPE_CHECKING:
    from strandline_broker.cluster.store import ClusterStore
    from strandline_broker.server.config import BrokerConfig
    from strandline_broker.server.http import HttpServer

logger = logging.getLogger(__name__)

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_KEPT_BYTES = 64 << 20


def run(config: BrokerConfig) -> int:
    """Run one broker until SIGTERM or SIGINT; return the exit code (0 stopped clean, 1 failed with a message)."""
    logging.basicConfig(
        level=config.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    _keep_memory_mapped()
    try:
        Path(config.data_dir).mkdir(parents=True, exist_ok=True)
        return asyncio.run(_serve(config))
    except (IdentityError, OSError, StoreError) as error:
        print(f"strandline broker: {error}", file=sys.stderr)  # noqa: T201 - the user's answer
        return 1


def _keep_memory_mapped() -> None:
    """Let malloc keep big buffers: without this every megabyte received pays its page faults again."""
    try:
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
    except (OSError, AttributeError):
        logger.debug("no mallopt in this C library")


async def _serve(config: BrokerConfig) -> int:
    loop = asyncio.get_running_loop()
    end = asyncio.Event()
    failures: list[str] = []

    def fail(reason: str) -> None:
        failures.append(reason)
        end.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end.set)
    store = _open_store(config)
    broker = Broker(
        config,
        clock=SystemClock(),
        rng=system_random(),
        disk=LocalDisk(config.data_dir),
        network=LocalNetwork(),
        store=store,
        threads=SystemThreads(),
        boot_id=read_boot_id(),
        on_lost=fail,
    )
    starting = loop.create_task(broker.start())
    ending = loop.create_task(end.wait())
    await asyncio.wait((starting, ending), return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        return 0
    starting.result()
    logger.info("broker %d is running", config.broker_id)
    http: HttpServer | None = None
    if config.http_port >= 0:
        # Only now: the first record should not wait for the HTTP library to be imported. In a thread: it takes half a
        # second, and leaders that just took this broker into their ISRs would wait for its fetches.
        module = await loop.run_in_executor(None, importlib.import_module, "strandline_broker.server.http")
        http = module.HttpServer(broker)
        await broker.announce_http(*await http.start(config.http_host, config.http_port))
    # The codec of rare requests takes a while to import: here, so that no request waits for it.
    await loop.run_in_executor(None, cold.warm_up, broker.registry.ranges)
    # What was made so far stays: the collector need not look at it again and again.
    gc.collect()
    gc.freeze()
    await ending
    if http is not None:
        await http.stop()
    await broker.stop()
    await store.close()
    for reason in failures:
        print(f"strandline broker: {reason}", file=sys.stderr)  # noqa: T201 - the user's answer
    return 1 if failures else 0


def _open_store(config: BrokerConfig) -> ClusterStore:
    kind, _, path = config.store.partition(":")
    if kind == "sqlite":
        return SqliteStore(path)
    raise OSError("store: kubernetes is not served by this version; use sqlite:PATH")
