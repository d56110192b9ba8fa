"""The table of SASL mechanisms that a listener can enable. Used by `server.listeners` and `api.support.sasl`.

The names are written out, so that a broker without SASL loads nothing for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import random

    from strandline_broker.security.exchange import Exchange
    from strandline_broker.security.users import Users

PLAIN: Final = "PLAIN"
MECHANISMS: Final[tuple[str, ...]] = (PLAIN, "SCRAM-SHA-256", "SCRAM-SHA-512")


def new_exchange(mechanism: str, users: Users, rng: random.Random) -> Exchange:
    """Begin a login by one of `MECHANISMS`."""
    from strandline_broker.security.credentials import ScramMechanism
    from strandline_broker.security.plain import PlainExchange
    from strandline_broker.security.scram import ScramExchange

    if mechanism == PLAIN:
        return PlainExchange(users)
    return ScramExchange(ScramMechanism(mechanism), users, rng)
