"""What is checked when a schedule is over, beside what clients and probes found while it ran.

`tests.crash.history` has the rules for records (lost, duplicated, reordered, skipped, one offset for two); here are those
for committed offsets, which are registers, and for replicas, which must agree.
"""

from __future__ import annotations

from collections.abc import Iterable

from tests.crash.history import check
from tests.simulation.journal import Commit, Committed, Journal, Lookup


def check_history(journal: Journal) -> None:
    """Apply the rules of `tests.crash.history` to what clients saw and what the logs hold in the end."""
    verdict = check(journal.history)
    journal.counts["records sent"] = verdict.sent
    journal.counts["records acked"] = verdict.acked
    journal.counts["records in the logs"] = verdict.read
    for example in verdict.examples:
        rule, _, text = example.partition(": ")
        journal.violation(rule, text)


def check_offsets(journal: Journal) -> None:
    """A group reads, of each partition, what was committed last, or something that was committed at the same time.

    A coordinator that had a successor and could not know may have told what was committed before: a leader that nothing can
    reach serves stale reads, which is the price of invariant 3, and Kafka's. Those are counted.
    """
    for partition, reads in sorted(journal.committed.items()):
        commits = journal.commits.get(partition, [])
        for read in reads:
            problem, stale = _explain(read, commits)
            if stale and read.unaware:
                journal.count("stale offsets")
            elif problem:
                journal.violation("committed offset lost", f"{partition}: {problem}")


def check_lookups(journal: Journal) -> None:
    """The first record that is not before a time: it is what was told, and no record before it is that late.

    A leader that had a successor may not know the newest records, and of records that were deleted since nothing is asked.
    """
    for lookup in journal.lookups:
        problem = "" if lookup.stale else _misled(journal, lookup)
        if problem:
            journal.violation("wrong lookup", f"{lookup.partition} at {lookup.timestamp}: {problem}")


def _misled(journal: Journal, lookup: Lookup) -> str:
    number, log_start = journal.number_of(lookup.partition), journal.log_starts[lookup.partition]
    if lookup.seen < log_start:
        return ""
    if not 0 <= lookup.offset <= lookup.seen:
        return f"{lookup.offset} was told, {lookup.seen} is right or too high"
    known = journal.times.get((number, lookup.offset), lookup.found_timestamp)
    if known != lookup.found_timestamp or known < lookup.timestamp:
        return f"{lookup.offset} was told with {lookup.found_timestamp}, it has {known}"
    for offset in range(log_start, lookup.offset):
        if journal.times.get((number, offset), -1) >= lookup.timestamp:
            return f"{lookup.offset} was told, {offset} comes before"
    return ""


def _explain(read: Committed, commits: Iterable[Commit]) -> tuple[str, bool]:
    """Return why no order of the commits explains what was read, empty if one does; and whether it was there once."""
    # Nothing committed is the value that was there before all commits.
    candidates = [c for c in commits if c.offset == read.offset and c.started < read.ended]
    if read.offset < 0:
        candidates = [Commit(read.offset, 0.0, 0.0)]
    if not candidates:
        return f"read {read.offset} at {read.started:.3f}, which nobody committed", False
    newest = ""
    for candidate in candidates:
        overwritten = [
            c
            for c in commits
            if c.ended is not None
            and candidate.ended is not None
            and c.started > candidate.ended
            and c.ended < read.started
        ]
        if not overwritten:
            return "", False
        newest = f"read {read.offset} at {read.started:.3f} after {overwritten[-1].offset} was committed"
    return newest, True
