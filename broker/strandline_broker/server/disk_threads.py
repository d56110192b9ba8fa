"""The threads in which a broker waits for its disk, so that its event loop does not.

Made by `server.broker`; whatever blocks is handed to `run`. Syncs and removals of big files may take long: they have
threads of their own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from strandline_broker.seams.threads import Threads


class DiskThreads:
    """See the module."""

    def __init__(self, loop: asyncio.AbstractEventLoop, threads: Threads) -> None:
        self._loop = loop
        self.syncs = threads.pool("log-sync")
        # One thread: the log manager wants its blocking calls one at a time.
        self.executor = threads.pool("disk")
        self.removals = threads.pool("disk-removals")
        self.on_error: Callable[[OSError], None] = _nothing
        """Called on the loop's thread with what `run` raises."""

    async def run(self, work: Callable[[], object]) -> object:
        """Return what `work` returns, when all that was handed in before it is done. Raises what it raises."""
        try:
            return await self._loop.run_in_executor(self.executor, work)
        except OSError as error:
            self.on_error(error)
            raise

    def shutdown(self) -> None:
        """Wait for what was handed in, and end the threads."""
        self.syncs.shutdown()
        self.executor.shutdown()
        self.removals.shutdown()


def _nothing(error: OSError) -> None:
    pass
