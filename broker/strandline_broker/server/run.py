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
_SWITCH_INTERVAL_S = 0.0005


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
    store = await _open_store(config)
    try:
        return await _run_broker(config, store)
    finally:
        await store.close()


async def _run_broker(config: BrokerConfig, store: ClusterStore) -> int:
    loop = asyncio.get_running_loop()
    end = asyncio.Event()
    failures: list[str] = []

    def fail(reason: str) -> None:
        failures.append(reason)
        end.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end.set)
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
    preparation = _Preparation(broker)
    starting = loop.create_task(broker.start(preparation.begin))
    ending = loop.create_task(end.wait())
    await asyncio.wait((starting, ending), return_when=asyncio.FIRST_COMPLETED)
    if not starting.done() and not preparation.begun:
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        return 0
    await starting
    logger.info("broker %d is running", config.broker_id)
    await preparation.begin()
    await ending
    if preparation.http is not None:
        await preparation.http.stop()
    await broker.stop()
    for reason in failures:
        print(f"strandline broker: {reason}", file=sys.stderr)  # noqa: T201 - the user's answer
    return 1 if failures else 0


class _Preparation:
    """What leaders need, the HTTP port, and the codec of rare requests: what the first record should not wait for.

    It takes a second of processor time, in threads. What a follower copies goes through several threads, too, and each of
    them would wait meanwhile for as long as Python lets a busy one go on: so that is made short. The garbage collector is
    told to leave alone what the start made and what stays.
    """

    def __init__(self, broker: Broker) -> None:
        self.http: HttpServer | None = None
        self._broker = broker
        self._task: asyncio.Task[None] | None = None

    @property
    def begun(self) -> bool:
        """Whether it has begun, so that little is left to wait for."""
        return self._task is not None

    def begin(self) -> asyncio.Task[None]:
        """Begin, if that has not happened, and return what ends when all is done. It raises OSError (address in use)."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())
        return self._task

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        config = self._broker.config
        gc.freeze()
        usual_s = sys.getswitchinterval()
        sys.setswitchinterval(_SWITCH_INTERVAL_S)
        try:
            await loop.run_in_executor(None, self._broker.warm_up)
            if config.http_port >= 0:
                module = await loop.run_in_executor(
                    None, importlib.import_module, "strandline_broker.server.http"
                )
                self.http = module.HttpServer(self._broker)
                await self._broker.announce_http(*await self.http.start(config.http_host, config.http_port))
            await loop.run_in_executor(None, cold.warm_up, self._broker.registry.ranges)
        finally:
            sys.setswitchinterval(usual_s)
        gc.freeze()


async def _open_store(config: BrokerConfig) -> ClusterStore:
    kind, _, path = config.store.partition(":")
    if kind == "sqlite":
        return SqliteStore(path)
    # Imported here: half a second that brokers without Kubernetes need not spend before their first record.
    from strandline_broker.cluster.kubernetes_store import open_kubernetes_store

    return await open_kubernetes_store(config.namespace)
