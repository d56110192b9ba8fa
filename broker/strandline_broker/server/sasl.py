"""What a broker with SASL listeners needs: its users, a thread for key derivations, and who guards connections.

Made by `server.endpoints` only where there is such a listener.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
from typing import TYPE_CHECKING

from strandline_broker.api.support.sasl import SaslAuthenticator, SaslSettings
from strandline_broker.security.mechanisms import PLAIN
from strandline_broker.security.users import UsersError
from strandline_broker.server.listeners import SASL_PLAINTEXT, Listener
from strandline_broker.server.users_file import UsersFile

if TYPE_CHECKING:
    from collections.abc import Callable

    from strandline_broker.net.connection import Connection
    from strandline_broker.seams.clock import Clock
    from strandline_broker.seams.threads import Threads
    from strandline_broker.server.config import BrokerConfig

logger = logging.getLogger(__name__)

USERS_CHECK_INTERVAL_S = 2.0
_MAX_THREADS = 4


class SaslService:
    """Authentication for the SASL listeners of one broker."""

    def __init__(
        self, config: BrokerConfig, users: UsersFile, *, clock: Clock, rng: random.Random, threads: Threads
    ) -> None:
        self._users = users
        # Guessing passwords costs us time as well: never all cores.
        self._executor = threads.pool("sasl", max(1, min(_MAX_THREADS, (os.cpu_count() or 1) // 2)))
        settings = SaslSettings(
            max_receive_bytes=config.sasl_server_max_receive_size,
            timeout_ms=config.sasl_authentication_timeout_ms,
            failure_delay_ms=config.connection_failed_authentication_delay_ms,
            max_reauth_ms=config.connections_max_reauth_ms,
        )
        self._authenticator = SaslAuthenticator(
            settings, lambda: users.current, clock=clock, rng=rng, executor=self._executor
        )

    @classmethod
    async def open(
        cls, config: BrokerConfig, *, clock: Clock, rng: random.Random, threads: Threads
    ) -> SaslService:
        """Read the users. Raises OSError, with a text for the user, if they cannot be used."""
        path = config.sasl_users_file
        assert path is not None, "checked by the configuration"
        try:
            users = await asyncio.to_thread(UsersFile, path, rng)
        except UsersError as error:
            raise OSError(f"sasl_users_file: {error}") from None
        return cls(config, users, clock=clock, rng=rng, threads=threads)

    def guard_of(self, listener: Listener) -> Callable[[Connection], None]:
        """Return what guards the new connections of a listener."""
        mechanisms = listener.sasl_mechanisms
        if PLAIN in mechanisms and listener.security_protocol == SASL_PLAINTEXT:
            logger.warning(
                "listener %s takes PLAIN without TLS: everybody on the way can read the passwords",
                listener.name,
            )
        return lambda connection: self._authenticator.guard(connection, mechanisms)

    async def check_users(self) -> None:
        """Take up a changed users file."""
        await asyncio.get_running_loop().run_in_executor(self._executor, self._users.check)

    def close(self) -> None:
        """Give up what waits; the connections are closed."""
        self._executor.shutdown(cancel_futures=True)
