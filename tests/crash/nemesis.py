"""Torment a cluster of several brokers under load, then check everything: `python -m tests.crash.nemesis --minutes 30`.

`strandline dev --brokers 3`, topics with three replicas and `min.insync.replicas=2`. Faults are drawn at random (`faults`)
while producers and consumers of two clients go on (`nemesis_load`). In the end the faults stop, every partition must
get its leader and a full ISR again, all records are read back, the brokers are stopped, and the replicas' files are
compared. `history.check`, `seen_records` and `storm_check` judge. Exit status 1 means findings.
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import signal
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.crash import volumes
from tests.crash.faults import KINDS, Fault, Inject, Site
from tests.crash.nemesis_cluster import NemesisCluster
from tests.crash.nemesis_load import TOPIC, LoadPlan, NemesisLoad
from tests.crash.nemesis_report import Measured, NemesisOutcome
from tests.crash.replica_logs import compare_all

STUCK_S = 90.0
"""Longest time without a write once nothing is broken any more."""
WELL_S = 180.0
"""Longest time until all replicas are in sync once nothing is broken any more."""
DEFAULT_KINDS = tuple(kind for kind in KINDS if kind != "partition")
_VOLUME_BYTES_PER_MINUTE = 40 << 20
_TICK_S = 0.02


@dataclass(frozen=True, slots=True)
class NemesisPlan:
    """What a run does. With `faults`, exactly these are done one after the other, for as long as it takes."""

    minutes: float = 10.0
    kinds: tuple[str, ...] = DEFAULT_KINDS
    brokers: int = 3
    load: LoadPlan = field(default_factory=LoadPlan)
    faults: tuple[Inject, ...] = ()


class Nemesis:
    """Does faults to a running cluster and measures what they cost."""

    def __init__(
        self,
        plan: NemesisPlan,
        site: Site,
        load: NemesisLoad,
        outcome: NemesisOutcome,
        say: Callable[[str], None],
    ) -> None:
        self._plan = plan
        self._site = site
        self._load = load
        self._outcome = outcome
        self._say = say
        self._rng = random.Random(plan.load.seed)
        self._started_at = time.monotonic()
        self._pending: list[Fault] = []
        """Done, and not measured yet."""

    def run(self) -> None:
        """Do faults until the time is over; undo them all."""
        deadline = self._started_at + self._plan.minutes * 60
        planned = iter(self._plan.faults)
        while not self._outcome.findings:
            if self._plan.faults:
                inject = next(planned, None)
                if inject is None:
                    break
                fault = self._patiently(inject)
            elif time.monotonic() > deadline:
                break
            else:
                fault = self._rng.choice(KINDS[self._rng.choice(self._plan.kinds)])(self._site, self._rng)
            if fault is None:
                self._pass(0.1)
                continue
            self._begin(fault)
            # Mostly one fault after the other, so that each one's cost is its own; sometimes one upon the other.
            if self._plan.faults or self._rng.random() < 0.65:
                self._settle()
                self._pass(self._rng.uniform(0.5, 4))
            else:
                self._pass(self._rng.uniform(0, 4))
        self._settle()
        self.undo()

    def undo(self) -> None:
        """Undo every fault that still lasts."""
        for fault in self._site.active:
            fault.heal()
        self._site.active.clear()

    def _patiently(self, inject: Inject) -> Fault | None:
        deadline = time.monotonic() + STUCK_S
        while (fault := inject(self._site, self._rng)) is None:
            if time.monotonic() > deadline:
                self._outcome.findings.append(f"{inject.__name__} cannot be done")
                break
            self._pass(0.1)
        return fault

    def _begin(self, fault: Fault) -> None:
        self._pending.append(fault)
        if fault.lasts_s:
            self._site.active.append(fault)
        self._say(f"[{fault.at - self._started_at:7.1f} s] {fault.kind}: {fault.what}")

    def _settle(self) -> None:
        """Wait until no fault lasts, and every partition that was hit takes writes."""
        since = time.monotonic()
        while self._site.active or self._pending:
            if self._site.active:
                since = time.monotonic()
            elif time.monotonic() - since > STUCK_S:
                what = [f"{fault.kind} ({fault.what})" for fault in self._pending]
                problems = self._site.cluster.state().problems(self._plan.brokers)
                self._outcome.findings.append(f"no write {STUCK_S:.0f} s after {what}: {problems}")
                self._measure(last=True)
                return
            self._pass(_TICK_S)

    def _pass(self, duration_s: float) -> None:
        """Let time pass: faults end, writes come back."""
        until = (before := time.monotonic()) + duration_s
        while True:
            now = time.monotonic()
            self._outcome.held_up_s = max(self._outcome.held_up_s, now - before)
            before = now
            for fault in [fault for fault in self._site.active if now > fault.at + fault.lasts_s]:
                fault.heal()
                self._site.active.remove(fault)
            self._measure()
            if now >= until:
                return
            time.sleep(min(_TICK_S, until - now))

    def _measure(self, *, last: bool = False) -> None:
        watch, now = self._load.watch, time.monotonic()
        watch.update()
        for fault in list(self._pending):
            recovered_at = watch.recovered_at(fault.partitions, fault.at)
            if (recovered_at is None or fault in self._site.active) and not last:
                continue
            self._pending.remove(fault)
            measured = Measured(
                fault,
                recovered_at - fault.at if recovered_at is not None and fault.partitions else None,
                watch.longest_gap(fault.partitions, fault.at, now),
            )
            self._outcome.faults.append(measured)
            if fault.partitions:
                self._say(f"[{now - self._started_at:7.1f} s]   {fault.kind}: {measured}")


def run(
    plan: NemesisPlan,
    cluster: NemesisCluster,
    folder: Path,
    *,
    say: Callable[[str], None] = lambda _: None,
    make_site: Callable[[NemesisCluster], Site] = lambda cluster: Site(cluster, TOPIC),
) -> NemesisOutcome:
    """Run one plan with a cluster that is not started yet; the clients keep their notes in `folder`."""
    outcome = NemesisOutcome(plan.load.seed)
    started = time.monotonic()
    with cluster:
        site = make_site(cluster)
        load = NemesisLoad(cluster.bootstrap, plan.load, folder)
        load.start()
        nemesis = Nemesis(plan, site, load, outcome, say)
        try:
            unwell = cluster.wait_until_well(WELL_S)
            outcome.findings += [f"not well to begin with: {why}" for why in unwell]
            nemesis.run()
            say("the faults are over")
            healed_at = time.monotonic()
            stuck = cluster.wait_until_well(WELL_S)
            if not stuck:
                outcome.well_after_s = time.monotonic() - healed_at
                load.finish()
                load.judge(outcome)
                # Nobody writes any more: now every replica must get everything.
                stuck = cluster.wait_until_well(WELL_S)
            outcome.findings += [f"stuck cluster: {why}" for why in stuck]
            for finding in outcome.findings:
                say(f"FINDING {finding}")  # now, and in the summary: what follows may take its time
        finally:
            nemesis.undo()
            load.abandon()
        state = cluster.state()
        outcome.logs = cluster.tail()
        cluster.stop()
        compared = compare_all(
            {broker: cluster.data_path(broker) for broker in range(plan.brokers)},
            {place: found.replicas for place, found in state.partitions.items()},
            state.compacted,
        )
        outcome.findings += [f"divergent replicas: {finding}" for finding in compared.findings]
        outcome.counts |= {"partitions compared": compared.partitions, "batches compared": compared.batches}
    if outcome.ok:
        outcome.logs = ""
    outcome.duration_s = time.monotonic() - started
    return outcome


def add_arguments(parser: argparse.ArgumentParser, kinds: tuple[str, ...]) -> None:
    """Add what all programs around a nemesis take."""
    parser.add_argument(
        "--minutes", type=float, default=10.0, help="of faults; healing and reading come on top"
    )
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--faults", default=",".join(kinds), help=f"kinds of faults, of {', '.join(KINDS)}")
    parser.add_argument("--brokers", type=int, default=3)
    parser.add_argument("--replicas", type=int, default=3)
    parser.add_argument("--min-isr", type=int, default=2)
    parser.add_argument("--partitions", type=int, default=6)
    parser.add_argument("--records-per-s", type=int, default=250, help="by all producers together")
    parser.add_argument("--data-dir", type=Path, help="kept when given; must not exist")
    parser.add_argument("--option", action="append", default=[], help="passed on to strandline dev")


def read_plan(arguments: argparse.Namespace, parser: argparse.ArgumentParser) -> NemesisPlan:
    """Return the plan that was asked for; exits with 2 for what does not exist."""
    kinds = tuple(arguments.faults.split(","))
    unknown = sorted(set(kinds) - KINDS.keys())
    if unknown:
        parser.error(f"--faults: {', '.join(unknown)}: there are {', '.join(KINDS)}")
    load = LoadPlan(
        seed=arguments.seed,
        partitions=arguments.partitions,
        replicas=arguments.replicas,
        min_isr=arguments.min_isr,
        records_per_s=arguments.records_per_s,
    )
    return NemesisPlan(arguments.minutes, kinds, arguments.brokers, load)


def options_of(plan: NemesisPlan, more: list[str]) -> tuple[str, ...]:
    """Return what `strandline dev` is told besides its brokers."""
    return ("--config", f"offsets.topic.num.partitions={plan.load.partitions}", *more)


def run_program(torment: Callable[[], NemesisOutcome]) -> None:
    """Run to the end, print the summary and end the process: 0 when nothing was found.

    SIGTERM undoes everything, as ctrl-C does. Clients' threads may go on for as long as they like after a failure: nobody
    waits for them.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        outcome = torment()
    except BaseException:  # noqa: BLE001 - whatever ended it, this is the end of the process
        traceback.print_exc()
        os._exit(2)
    say(str(outcome))
    os._exit(0 if outcome.ok else 1)


def say(text: str) -> None:
    """Print a line now."""
    print(text, flush=True)  # noqa: T201 - as above


def main() -> None:
    """Run from the command line."""
    logging.basicConfig(level=logging.CRITICAL)  # clients say what they cannot reach; it is in the counts
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    add_arguments(parser, DEFAULT_KINDS)
    arguments = parser.parse_args()
    plan = read_plan(arguments, parser)
    if "partition" in plan.kinds:
        parser.error("--faults partition: needs `python -m tests.crash.netns_cluster`")
    volume_bytes = 0
    if "full-disk" in plan.kinds:
        if volumes.available():
            volume_bytes = (256 << 20) + int(plan.minutes * _VOLUME_BYTES_PER_MINUTE)
        else:
            say("SKIPPED full-disk: needs root, mkfs.ext4 and loop devices")
            plan = replace(plan, kinds=tuple(kind for kind in plan.kinds if kind != "full-disk"))
    say(f"seed {plan.load.seed}, faults {', '.join(plan.kinds)}")

    def torment() -> NemesisOutcome:
        with tempfile.TemporaryDirectory(prefix="strandline-nemesis-") as scratch:
            root = arguments.data_dir or Path(scratch)
            cluster = NemesisCluster(
                root / "cluster",
                brokers=plan.brokers,
                options=options_of(plan, arguments.option),
                volume_bytes=volume_bytes,
            )
            return run(plan, cluster, root / "clients", say=say)

    run_program(torment)


if __name__ == "__main__":
    main()
