"""How brokers authenticate to each other: SCRAM-SHA-256, one user, the token that they share as its password.

The token is random and long (`security.broker_token`), which is why PBKDF2's cost is at SCRAM's minimum: iterations slow
down who guesses passwords that people choose, and a token of 256 random bits cannot be guessed at any speed.

Both sides use it: `peers.socket_peers` and `server.inter_broker`. Pure.
"""

from __future__ import annotations

from typing import Final

from strandline_broker.security.credentials import MIN_ITERATIONS, ScramMechanism, derive
from strandline_broker.security.users import Users

MECHANISM: Final = ScramMechanism.SHA_256
USER_NAME: Final = "__broker"


def users_of_token(token: str, salt: bytes, spare_secret: bytes) -> Users:
    """Return the only user that a listener between brokers knows. Takes 2 ms of CPU."""
    credential = derive(MECHANISM, token, salt, MIN_ITERATIONS)
    return Users({USER_NAME: {MECHANISM: credential}}, spare_secret)
