"""How a broker ends and starts again, and what its next life has of the last one (design sections 3.2 and 3.3)."""

from __future__ import annotations

from collections.abc import Iterator

from tests.model.broker import BrokerMoves, Start, shortened
from tests.model.settings import Bounds, Switches
from tests.model.state import NO_EPOCH, NO_VIEW, Broker

from strandline_broker.cluster.model import NO_LEADER


class Starts:
    """Every way in which a broker may end and start. `moves` says what it makes of what it finds on its disk."""

    def __init__(self, bounds: Bounds, switches: Switches, moves: BrokerMoves) -> None:
        self.bounds = bounds
        self.switches = switches
        self._moves = moves

    def of(self, broker: Broker) -> Iterator[Start]:
        """Yield them, each also with a replica fetch that the ended life left under way."""
        follows = self._moves.leader_followed(broker) != NO_LEADER
        for start in self._all(broker):
            yield start
            if self.bounds.late_fetches and follows:
                yield start._replace(
                    label=f"{start.label}, a fetch of its stays under way", fetch=self._moves.fetch(broker)
                )

    def _all(self, broker: Broker) -> Iterator[Start]:
        number = broker.number
        crashed = self._next_life(broker)
        if self.bounds.flush_replicated:
            yield from self._crashed(broker, crashed, f"broker {number}'s process crashes and starts")
            for length in range(len(broker.log) + 1):
                label = f"broker {number}'s machine crashes, {length} records are left, it starts"
                yield from self._crashed(broker, self._replaced(crashed, length), label)
        else:
            for length in range(broker.synced, len(broker.log) + 1):
                label = f"broker {number} crashes, {length} records are left, it starts"
                yield from self._crashed(broker, shortened(crashed, length), label)
        wiped = self._replaced(crashed, 0)._replace(view=NO_VIEW)
        yield Start(f"broker {number} loses its volume and starts with an empty one", wiped, clean=False)
        for length in range(len(broker.log)):
            label = f"broker {number} stops cleanly, its log is damaged, {length} records are left, it starts"
            damaged = self._replaced(crashed, length)
            if not self.switches.leads_only_as_named:
                damaged = damaged._replace(claim=broker.incarnation)
            yield Start(label, self._reconsidered(broker, damaged), clean=False)
        stopped = crashed
        if broker.unfit_epoch == NO_EPOCH or not self.switches.resumes_only_with_sound_logs:
            stopped = stopped._replace(claim=broker.incarnation)
        if not self.bounds.flush_replicated:
            stopped = stopped._replace(synced=len(broker.log))
        yield Start(
            f"broker {number} stops cleanly and starts", self._reconsidered(broker, stopped), clean=True
        )

    def _crashed(self, broker: Broker, started: Broker, label: str) -> Iterator[Start]:
        """Yield the starts after one crash."""
        if not self.switches.resumes_only_after_clean_stop:
            started = started._replace(claim=broker.incarnation)
        yield Start(label, self._reconsidered(broker, started), clean=False)
        if not self.switches.remembers_newest_state:
            forgetful = f"{label}; what it knew of the store is gone"
            yield Start(forgetful, started._replace(view=NO_VIEW), clean=False)

    def _next_life(self, broker: Broker) -> Broker:
        """Return what is left of a broker's memory; its high watermark, from the checkpoint, only if that is in its log."""
        incarnation = broker.incarnation + 1
        return self._moves.resigned(broker)._replace(
            incarnation=incarnation, claim=incarnation, progress=(), unfit_epoch=NO_EPOCH, cuts=0
        )

    def _replaced(self, broker: Broker, length: int) -> Broker:
        """Return a broker whose log lost bytes that may count."""
        generation = broker.generation + (1 if self.switches.changes_generation else 0)
        return shortened(broker, length)._replace(generation=generation)

    def _reconsidered(self, before: Broker, started: Broker) -> Broker:
        """Take the cached view after a start, and the attempts that were written down for it.

        Only an incarnation that it names leads: none, but after a clean stop.
        """
        if started.view == NO_VIEW:
            return started
        attempted = before.attempted if self.switches.persists_attempts else ()
        return self._moves.take_view(started, started.view, attempted)
