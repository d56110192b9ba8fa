"""What all SASL mechanisms have in common: tokens in, and one of four outcomes out.

An exchange is a pure state machine for one login. It is given the client's tokens until it answers `Success` or
`Failure`; after either it must not be used again. No outcome shows a secret in its `repr`.

Implemented by `security.plain` and `security.scram`, run by `security.session`.

Source: RFC 4422.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Challenge:
    """The exchange goes on: send `token` and wait for the client's."""

    token: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Success:
    """The client is `name`. `token` is the last one to send; it may be empty."""

    name: str
    token: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Failure:
    """No login. `reason` is for our log.

    `message` is what the client is told; None stands for Kafka's neutral text, which names only the mechanism. It must
    never depend on whether a user exists.
    """

    reason: str
    message: str | None = None


@dataclass(frozen=True, slots=True)
class Check:
    """The outcome takes milliseconds of CPU: call `run` in a thread, and take its result as the outcome.

    `run` touches nothing of the exchange and raises nothing.
    """

    run: Callable[[], Success | Failure] = field(repr=False)


Outcome = Challenge | Success | Failure | Check


class Exchange(Protocol):
    """One login by one mechanism."""

    def step(self, token: bytes, /) -> Outcome:
        """Take the client's token. Never raises for what a client sends."""
        ...
