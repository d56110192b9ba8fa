"""The listener between brokers: its token file, the authentication of who connects to it, and connections to others.

Made by `server.broker` before it replicates, only where there is such a listener. A changed token file counts for new
connections within seconds; open ones go on, so that replication does not stop while the new token reaches every broker.

Keys and the modules of SASL are made and loaded when the first broker connects, or by `warm_up` before: 20 ms in all. A
broker that comes up has more urgent things to do, but one that is handed a leadership must not stop for them.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import random
from pathlib import Path
from typing import TYPE_CHECKING

from strandline_broker.cluster.model import LEASE
from strandline_broker.security.broker_token import MAX_TOKEN_CHARACTERS, TokenError, parse_token

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor

    from strandline_broker.api.support.sasl import SaslAuthenticator
    from strandline_broker.cluster.cache import Change
    from strandline_broker.cluster.view import ClusterView
    from strandline_broker.net.connection import Connection
    from strandline_broker.peers.contract import PeerConnection, Peers
    from strandline_broker.seams.clock import Clock
    from strandline_broker.seams.network import Network
    from strandline_broker.security.users import Users
    from strandline_broker.server.config import BrokerConfig
    from strandline_broker.server.tasks import Tasks

logger = logging.getLogger(__name__)

TOKEN_CHECK_INTERVAL_S = 2.0
_CONNECT_TIMEOUT_S = 10.0
# Beyond what the leader may wait for records; as Kafka's replica.socket.timeout.ms.
_ANSWER_TIMEOUT_S = 30.0
# An answer for as many partitions as a request may name has 8 MB without records.
_ANSWER_OVERHEAD_BYTES = 16 * 1024 * 1024
_SALT_BYTES = 16
_SECRET_BYTES = 32
# The messages of SCRAM have a few hundred bytes.
_MAX_LOGIN_BYTES = 16 * 1024
_MAX_FILE_BYTES = 2 * MAX_TOKEN_CHARACTERS

# `encodings.idna`: sockets load it for the first name or address that they are given.
_LATE_MODULES = (
    "strandline_broker.api.support.sasl",
    "strandline_broker.peers.socket_peers",
    "encodings.idna",
)

_Signature = tuple[int, int, int]


class TokenFile:
    """The newest usable token of a file. Methods block."""

    def __init__(self, path: str) -> None:
        """Read the file. Raises OSError with a text for the user."""
        self._path = Path(path)
        try:
            self._signature: _Signature | None = self._look()
            self.current = self._read()
        except (OSError, TokenError) as error:
            raise OSError(f"inter_broker_token_file: {path}: {_text(error)}") from None

    def check(self) -> bool:
        """Read the file again if it changed; return whether there is a new token.

        A file that cannot be used is logged once, and the token stays as it was.
        """
        signature: _Signature | None = None
        try:
            signature = self._look()
            if signature == self._signature:
                return False
            token = self._read()
        except (OSError, TokenError) as error:
            if signature is not None or self._signature is not None:
                logger.error(
                    "the token between brokers stays as it was, %s cannot be used: %s",
                    self._path,
                    _text(error),
                )
            self._signature = signature
            return False
        self._signature = signature
        if token == self.current:
            return False
        self.current = token
        logger.info("%s has a new token between brokers; new connections use it", self._path)
        return True

    def _look(self) -> _Signature:
        status = os.stat(self._path)  # noqa: PTH116 - follows Kubernetes' symlinks
        return status.st_mtime_ns, status.st_ino, status.st_size

    def _read(self) -> str:
        with self._path.open("rb") as file:
            return parse_token(file.read(_MAX_FILE_BYTES))


def _text(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


class InterBroker:
    """Both directions of what brokers have to say to each other."""

    def __init__(
        self,
        config: BrokerConfig,
        token_file: TokenFile,
        *,
        clock: Clock,
        rng: random.Random,
        executor: Executor,
    ) -> None:
        """`executor` is for short blocking work; it stays its owner's."""
        self._executor = executor
        self._config = config
        self._token_file = token_file
        self._clock = clock
        self._rng = rng
        # The salt is no secret. One for the life of this process lets others derive their keys only once.
        self._salt = rng.randbytes(_SALT_BYTES)
        self._spare_secret = rng.randbytes(_SECRET_BYTES)
        self._authenticator: SaslAuthenticator | None = None
        self._mechanisms: tuple[str, ...] = ()
        self._users: tuple[str, Users] | None = None

    @classmethod
    async def open(
        cls, config: BrokerConfig, *, clock: Clock, rng: random.Random, executor: Executor
    ) -> InterBroker:
        """Read the token. Raises OSError, with a text for the user, if it cannot be used."""
        path = config.inter_broker_token_file
        assert path is not None, "checked by the configuration"
        token_file = await asyncio.get_running_loop().run_in_executor(executor, TokenFile, path)
        return cls(config, token_file, clock=clock, rng=rng, executor=executor)

    def warm_up(self) -> None:
        """Load and make what the first connections in either direction need. Blocks; for a thread."""
        for module in _LATE_MODULES:
            importlib.import_module(module)
        self._current_users()

    def guard(self, connection: Connection) -> None:
        """Let nothing but authentication through on a new connection, for now."""
        if self._authenticator is None:
            self._authenticator = self._make_authenticator()
        self._authenticator.guard(connection, self._mechanisms)

    def peers(self, network: Network) -> Peers:
        """Return where connections to other brokers come from."""
        config = self._config

        def make() -> Peers:
            from strandline_broker.peers.socket_peers import SocketPeers

            # A leader sends at least one batch, however large: at most as large as a producer may send it.
            largest_batch_bytes = config.socket_request_max_bytes
            return SocketPeers(
                network,
                token=lambda: self._token_file.current,
                client_id=f"broker-{config.broker_id}",
                rng=self._rng,
                executor=self._executor,
                connect_timeout_s=_CONNECT_TIMEOUT_S,
                request_timeout_s=_ANSWER_TIMEOUT_S + config.replica_fetch_wait_max_ms / 1000,
                max_response_bytes=config.replica_fetch_response_max_bytes
                + largest_batch_bytes
                + _ANSWER_OVERHEAD_BYTES,
            )

        return _LatePeers(make)

    async def check_token(self) -> None:
        """Take up a changed token file."""
        await asyncio.get_running_loop().run_in_executor(self._executor, self._token_file.check)

    def _make_authenticator(self) -> SaslAuthenticator:
        from strandline_broker.api.support.sasl import SaslAuthenticator, SaslSettings
        from strandline_broker.security.inter_broker import MECHANISM

        self._mechanisms = (str(MECHANISM),)
        settings = SaslSettings(
            max_receive_bytes=_MAX_LOGIN_BYTES,
            timeout_ms=self._config.sasl_authentication_timeout_ms,
            failure_delay_ms=self._config.connection_failed_authentication_delay_ms,
        )
        return SaslAuthenticator(
            settings, self._current_users, clock=self._clock, rng=self._rng, executor=self._executor
        )

    def _current_users(self) -> Users:
        from strandline_broker.security.inter_broker import users_of_token

        token = self._token_file.current
        if self._users is None or self._users[0] != token:
            self._users = (token, users_of_token(token, self._salt, self._spare_secret))
        return self._users[1]


async def open_inter_broker(
    config: BrokerConfig,
    *,
    view: ClusterView,
    tasks: Tasks,
    clock: Clock,
    rng: random.Random,
    executor: Executor,
) -> InterBroker | None:
    """Return what is needed between brokers, whose token `tasks` follow; None where there is no listener for it.

    That is logged as soon as `view` shows other brokers. Raises OSError, with a text for the user, for an unusable token.
    """
    if not any(listener.internal for listener in config.resolve_listeners()):
        warn_once_others_appear(view)
        return None
    made = await InterBroker.open(config, clock=clock, rng=rng, executor=executor)
    tasks.every(TOKEN_CHECK_INTERVAL_S, made.check_token)
    return made


class _LatePeers:
    """Implements `peers.contract.Peers`; what it needs is loaded by the first connection."""

    def __init__(self, make: Callable[[], Peers]) -> None:
        self._make = make
        self._peers: Peers | None = None

    async def connect(self, host: str, port: int) -> PeerConnection:
        if self._peers is None:
            self._peers = self._make()
        return await self._peers.connect(host, port)


def warn_once_others_appear(view: ClusterView) -> None:
    """Log, once there are other brokers, that this one cannot replicate: it has no listener for them."""

    def look(change: Change) -> None:
        if change.kind == LEASE and len(view.leases) > 1:
            stop()
            logger.warning(
                "this cluster has several brokers, and this one can neither follow others nor be followed: set "
                "inter_broker_listener_name and inter_broker_token_file to replicate"
            )

    stop = view.on_change(look)
