"""`make model`: exhaust every configuration with all rules on, and find the trace of every rule that is off.

Prints the tables of docs/model-checking.md. Ends with 1 when a rule is broken with all rules on, or when a mutant does not
do what it should. `--write` rewrites the trace files.
"""

from __future__ import annotations

import argparse
import resource
import sys

from tests.model import configurations
from tests.model.checker import Result, explore
from tests.model.mutants import MUTANTS, Mutant
from tests.model.settings import Bounds
from tests.model.traces import as_text, trace_file

HEADER = "| brokers | flush | min ISR | epochs | records | crashes | clean stops | in flight | late | states | depth | seconds |"


def describe(bounds: Bounds) -> str:
    """Return the cells that tell a configuration."""
    late = (
        ["fetches"] * bounds.late_fetches + ["views"] * bounds.late_views + ["Leases"] * bounds.stale_leases
    )
    return (
        f"| {bounds.brokers} | {'Replicated' if bounds.flush_replicated else 'Fsync'} | {bounds.min_isr} | {bounds.epochs} "
        f"| {bounds.log_length} | {bounds.crashes} | {bounds.clean_restarts} | {bounds.writes_in_flight} "
        f"| {', '.join(late) or '-'} |"
    )


def check_all(wanted: str) -> bool:
    """Exhaust the configurations with all rules on; return whether nothing was found."""
    print(HEADER)
    print("|" + "---|" * 12, flush=True)
    good = True
    states, seconds = 0, 0.0
    for bounds in configurations.ALL:
        if wanted not in describe(bounds):
            continue
        result = explore(bounds)
        states, seconds = states + result.states, seconds + result.seconds
        print(f"{describe(bounds)} {result.states:,} | {result.depth} | {result.seconds:.0f} |", flush=True)
        if not result.exhausted:
            good = False
            print("\n".join([*result.trace, result.violation]), flush=True)
    memory_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(
        f"\n{states:,} states, {states / max(seconds, 1e-9):,.0f} per second, {memory_mib} MiB\n", flush=True
    )
    return good


def check_mutant(mutant: Mutant) -> tuple[Result, str]:
    """Search a mutant's trace; return it, and what is wrong about it."""
    result = explore(mutant.bounds, mutant.switches, strict=mutant.strict, keep_parents=True)
    if mutant.needless:
        return result, "" if result.exhausted else f"a trace after all: {result.violation}"
    return result, "" if result.violation else "no trace: enlarge its world, or say why the rule is needless"


def check_mutants(wanted: str, *, write: bool) -> bool:
    """Find every mutant's trace; return whether all are as they should be."""
    print("| the rule that is off | states | steps | what is found |")
    print("|---|---|---|---|", flush=True)
    good = True
    for mutant in MUTANTS:
        if wanted not in mutant.name:
            continue
        result, wrong = check_mutant(mutant)
        found = (mutant.needless and f"nothing: {mutant.needless}") or result.violation
        steps = "-" if mutant.needless else str(len(result.steps))
        print(f"| {mutant.rule} | {result.states:,} | {steps} | {wrong or found} |", flush=True)
        if result.violation and write:
            trace_file(mutant).write_text(as_text(mutant, result), encoding="utf-8")
        good = good and not wrong
    return good


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=("worlds", "mutants"), help="leave out the other half")
    parser.add_argument("--match", default="", help="only configurations or mutants that contain this")
    parser.add_argument("--write", action="store_true", help="rewrite the trace files")
    options = parser.parse_args()
    good = options.only == "mutants" or check_all(options.match)
    if options.only != "worlds":
        good = check_mutants(options.match, write=options.write) and good
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
