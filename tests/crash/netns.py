"""A network of its own for a few brokers: one network namespace each, on a bridge in a namespace of its own.

Needs root and iproute2, and nothing else: a direction of a link is cut by giving the sender a wrong hardware address for
the receiver, so that what it sends reaches nobody and no error comes back, as with a broken switch. The bridge and every
broker are at PREFIX.1 and PREFIX.10 upwards; the host reaches them through its own end at PREFIX.2. Closing removes all.
"""

from __future__ import annotations

import functools
import os
import random
import shutil
import subprocess
from collections.abc import Iterable
from types import TracebackType

from tests.crash.fault_network import Heal

_NOBODY = "02:00:00:00:ff:ff"
HOST = -1
"""The host's end, where clients are, among the numbers of brokers."""
_SHAPES = ("5mbit", "1mbit", "256kbit")


class NetnsError(Exception):
    """A command of iproute2 failed; the message holds what it said."""


@functools.cache
def available() -> bool:
    """Say whether network namespaces and their links can be made here."""
    if os.geteuid() != 0 or not shutil.which("ip"):
        return False
    try:
        with Netns(1):
            return True
    except NetnsError:
        return False


class Netns:
    """The namespaces; a context manager. `Network` for faults."""

    def __init__(self, brokers: int) -> None:
        self.brokers = brokers
        self._tag = f"{random.SystemRandom().randrange(1 << 16):04x}"
        self._prefix = f"10.213.{random.SystemRandom().randrange(1, 255)}"
        self._host_link = f"sl{self._tag}h"
        self._made: list[str] = []

    def __enter__(self) -> Netns:
        try:
            self._make()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _make(self) -> None:
        switch = self.namespace("switch")
        self._add(switch)
        _ip("-n", switch, "link", "add", "bridge0", "type", "bridge")
        _ip("-n", switch, "link", "set", "bridge0", "up")
        self._connect(HOST)
        for broker in range(self.brokers):
            self._add(self.namespace(broker))
            self._connect(broker)

    def _add(self, namespace: str) -> None:
        _ip("netns", "add", namespace)
        self._made.append(namespace)
        _ip("-n", namespace, "link", "set", "lo", "up")

    def _connect(self, end: int) -> None:
        """Plug an end into the bridge; its hardware address tells its number."""
        switch, port = self.namespace("switch"), f"port{end + 1}"
        mine = self._host_link if end == HOST else "eth0"
        where = () if end == HOST else ("-n", self.namespace(end))
        outside = f"sl{self._tag}{end + 1}"
        _ip("link", "add", outside, "type", "veth", "peer", "name", f"{outside}p")
        _ip("link", "set", f"{outside}p", "netns", switch, "name", port)
        _ip("-n", switch, "link", "set", port, "master", "bridge0", "up")
        if end != HOST:
            _ip("link", "set", outside, "netns", self.namespace(end), "name", mine)
        else:
            _ip("link", "set", outside, "name", mine)
        _ip(*where, "link", "set", mine, "address", self._hardware_address(end))
        _ip(*where, "address", "add", f"{self.address(end)}/24", "dev", mine)
        _ip(*where, "link", "set", mine, "up")

    def close(self) -> None:
        """Remove everything, whatever was made of it. Links go with their namespaces."""
        for link in (self._host_link, f"sl{self._tag}0"):
            subprocess.run(["ip", "link", "del", link], check=False, capture_output=True)
        for namespace in reversed(self._made):
            subprocess.run(["ip", "netns", "del", namespace], check=False, capture_output=True)
        self._made.clear()

    def namespace(self, end: int | str) -> str:
        """Return the name of a broker's namespace."""
        return f"strandline-{self._tag}-{end}"

    def address(self, end: int) -> str:
        """Return the address of a broker, or of the host's end."""
        return f"{self._prefix}.{2 if end == HOST else 10 + end}"

    @property
    def placeholder(self) -> str:
        """An address in this network that is nobody's, to be replaced by each broker's own."""
        return f"{self._prefix}.200"

    def _hardware_address(self, end: int) -> str:
        return f"02:00:00:00:00:{end + 16:02x}"

    # -- faults --------------------------------------------------------------------------------------------------------

    def block(self, sender: int, receiver: int) -> None:
        """Let nothing that one end sends reach another."""
        self._point(sender, receiver, _NOBODY)

    def unblock(self, sender: int, receiver: int) -> None:
        """Undo `block`."""
        self._point(sender, receiver, self._hardware_address(receiver))

    def _point(self, sender: int, receiver: int, hardware_address: str) -> None:
        where = () if sender == HOST else ("-n", self.namespace(sender))
        device = self._host_link if sender == HOST else "eth0"
        address = self.address(receiver)
        _ip(
            *where, "neigh", "replace", address, "lladdr", hardware_address, "dev", device, "nud", "permanent"
        )

    def cut(self, broker: int, rng: random.Random) -> tuple[str, Heal]:
        """Cut a broker off: from the others, from one of them, from everybody; both ways, or one way."""
        others = [other for other in range(self.brokers) if other != broker]
        whom = rng.choice(("the others", "the others", "one", "everybody"))
        if whom == "one" and others:
            others = [rng.choice(others)]
        elif whom == "everybody":
            others.append(HOST)
        way = rng.choice(("both ways", "both ways", "what it sends", "what it gets"))
        blocked = []
        if way != "what it gets":
            blocked += [(broker, other) for other in others]
        if way != "what it sends":
            blocked += [(other, broker) for other in others]
        for pair in blocked:
            self.block(*pair)
        named = ", ".join("clients" if other == HOST else f"broker {other}" for other in others)
        return f"broker {broker} cut off from {named} ({way})", self._healer(blocked)

    def _healer(self, blocked: Iterable[tuple[int, int]]) -> Heal:
        pairs = list(blocked)

        def heal() -> None:
            for pair in pairs:
                self.unblock(*pair)

        return heal

    def slow(self, broker: int, rng: random.Random) -> tuple[str, Heal]:
        """Make a link slow in both directions: with delay where the kernel has netem, else with little bandwidth."""
        switch, port = self.namespace("switch"), f"port{broker + 1}"
        ends = (("-n", self.namespace(broker), "eth0"), ("-n", switch, port))
        delay_ms = rng.choice((20, 100, 400))
        what = f"broker {broker}'s link has {delay_ms} ms more each way"
        shaping: tuple[str, ...] = ("netem", "delay", f"{delay_ms}ms")
        if not _can_delay(ends[0]):
            rate = rng.choice(_SHAPES)
            what = f"broker {broker}'s link has {rate}/s"
            shaping = ("tbf", "rate", rate, "burst", "16k", "latency", "400ms")
        for flag, namespace, device in ends:
            _run("tc", flag, namespace, "qdisc", "replace", "dev", device, "root", *shaping)

        def heal() -> None:
            for flag, namespace, device in ends:
                _run("tc", flag, namespace, "qdisc", "del", "dev", device, "root")

        return what, heal


def _can_delay(end: tuple[str, str, str]) -> bool:
    flag, namespace, device = end
    try:
        _run("tc", flag, namespace, "qdisc", "replace", "dev", device, "root", "netem", "delay", "1ms")
    except NetnsError:
        return False
    return True


def _ip(*arguments: str) -> None:
    _run("ip", *arguments)


def _run(*command: str) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise NetnsError(f"{' '.join(command)}: {done.stderr.strip()}")
