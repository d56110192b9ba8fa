"""The table of SASL mechanisms that a listener can enable. Used by `server.listeners` and `api.support.sasl`."""

from __future__ import annotations

import random
from typing import Final

from strandline_broker.security.credentials import ScramMechanism
from strandline_broker.security.exchange import Exchange
from strandline_broker.security.plain import NAME as PLAIN
from strandline_broker.security.plain import PlainExchange
from strandline_broker.security.scram import ScramExchange
from strandline_broker.security.users import Users

MECHANISMS: Final[tuple[str, ...]] = (PLAIN, *ScramMechanism)


def new_exchange(mechanism: str, users: Users, rng: random.Random) -> Exchange:
    """Begin a login by one of `MECHANISMS`."""
    if mechanism == PLAIN:
        return PlainExchange(users)
    return ScramExchange(ScramMechanism(mechanism), users, rng)
