"""`make model`: exhaust every configuration with all rules on, and find the trace of every rule that is off.

Prints the tables of docs/model-checking.md. Ends with 1 when a promise is broken with all rules on, or when a mutant does
not do what it should. `--write` rewrites the trace files.
"""

from __future__ import annotations

import argparse
import resource
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias

from tests.model import configurations, tiering_configurations, tiering_mutants
from tests.model.checker import System, explore
from tests.model.mutants import MUTANTS
from tests.model.settings import Bounds, Switches
from tests.model.tiering_settings import Bounds as TieringBounds
from tests.model.tiering_settings import Switches as TieringSwitches
from tests.model.tiering_world import World as TieringWorld
from tests.model.traces import AnyMutant, as_text, search, trace_file
from tests.model.world import World

WORLDS_HEADER = (
    "| brokers | flush | min ISR | epochs | records | crashes | clean stops | in flight | more "
    "| states | depth | seconds |\n|---|---|---|---|---|---|---|---|---|---|---|---|"
)
TIERING_HEADER = (
    "| brokers | records (tiered) | epochs | lost answers | crashes, volumes | resumed | unclean | log starts | scrubs "
    "| more | states | depth | seconds |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|"
)
MUTANTS_HEADER = "| the rule that is off | states | steps | what is found |\n|---|---|---|---|"


Worlds: TypeAlias = Sequence[tuple[str, Callable[[], System]]]


def say(text: str) -> None:
    """Print what this program is for, at once."""
    print(text, flush=True)  # noqa: T201


def describe(bounds: Bounds) -> str:
    """Return the cells that tell a configuration."""
    more = {
        "late fetches": bounds.late_fetches,
        "late views": bounds.late_views,
        "failed logs": bounds.failed_logs,
        "followers' watermarks": bounds.follower_watermarks,
    }
    flush = "Replicated" if bounds.flush_replicated else "Fsync"
    cells = (
        bounds.brokers, flush, bounds.min_isr, bounds.epochs, bounds.log_length, bounds.crashes, bounds.clean_restarts,
        bounds.writes_in_flight, ", ".join(name for name, is_on in more.items() if is_on) or "-",
    )  # fmt: skip
    return "| " + " | ".join(map(str, cells)) + " |"


def describe_tiering(bounds: TieringBounds) -> str:
    """Return the cells that tell a configuration of tiering."""
    more = {
        "late answers": bounds.late_answers,
        "late DELETEs of manifests": bounds.late_collection,
        f"segments of {' and '.join(map(str, bounds.segment_sizes))}": len(set(bounds.segment_sizes)) > 1,
    }
    cells = (
        len(bounds.segment_sizes), f"{bounds.log_length} ({bounds.tiered})", bounds.epochs, bounds.lost_answers,
        f"{bounds.crashes}, {bounds.lost_volumes}", bounds.resumptions, bounds.unclean_elections, bounds.raises,
        bounds.scrubs, ", ".join(name for name, is_on in more.items() if is_on) or "-",
    )  # fmt: skip
    return "| " + " | ".join(map(str, cells)) + " |"


def check_worlds(worlds: Worlds, wanted: str) -> bool:
    """Exhaust configurations, each with what tells of it, with all rules on; return whether nothing was found."""
    good = True
    states, seconds = 0, 0.0
    for description, make in worlds:
        if wanted not in description:
            continue
        result = explore(make)
        states, seconds = states + result.states, seconds + result.seconds
        say(f"{description} {result.states:,} | {result.depth} | {result.seconds:.0f} |")
        if not result.exhausted:
            good = False
            say("\n".join([*result.trace, result.violation]))
    memory_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    say(f"\n{states:,} states, {states / max(seconds, 1e-9):,.0f} per CPU second, {memory_mib} MiB\n")
    return good


def replication_worlds() -> Worlds:
    """Return the worlds of replication."""
    return [
        (describe(bounds), partial(World, bounds, Switches(), strict=True)) for bounds in configurations.ALL
    ]


def tiering_worlds() -> Worlds:
    """Return the worlds of tiering."""
    return [
        (describe_tiering(bounds), partial(TieringWorld, bounds, TieringSwitches(), strict=True))
        for bounds in tiering_configurations.ALL
    ]


def check_mutants(mutants: Sequence[AnyMutant], wanted: str, *, write: bool) -> bool:
    """Find every mutant's trace; return whether all are as they should be."""
    say(MUTANTS_HEADER)
    good = True
    for mutant in mutants:
        if wanted not in mutant.name:
            continue
        result = search(mutant)
        as_expected = result.exhausted if mutant.needless else bool(result.violation)
        good = good and as_expected
        found = result.violation or f"nothing: {mutant.needless}"
        if not as_expected:
            found = f"NOT AS EXPECTED, {found}"
        say(f"| {mutant.rule} | {result.states:,} | {len(result.steps) or '-'} | {found} |")
        if result.violation and write:
            trace_file(mutant).write_text(as_text(mutant, result), encoding="utf-8")
    say("")
    return good


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=("replication", "tiering"), help="leave out the other part")
    parser.add_argument("--only", choices=("worlds", "mutants"), help="leave out the other half")
    parser.add_argument("--match", default="", help="only configurations or mutants that contain this")
    parser.add_argument("--write", action="store_true", help="rewrite the trace files")
    options = parser.parse_args()
    parts: dict[str, tuple[str, Worlds, Sequence[AnyMutant]]] = {
        "replication": (WORLDS_HEADER, replication_worlds(), MUTANTS),
        "tiering": (TIERING_HEADER, tiering_worlds(), tiering_mutants.MUTANTS),
    }
    good = True
    for name, (header, worlds, mutants) in parts.items():
        if options.part not in (None, name):
            continue
        say(f"## {name}\n")
        if options.only != "mutants":
            say(header)
            good = check_worlds(worlds, options.match) and good
        if options.only != "worlds":
            good = check_mutants(mutants, options.match, write=options.write) and good
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
