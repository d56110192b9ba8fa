"""What many schedules come to: added up result by result, kept as JSON lines, and printed.

`run.py --record FILE` appends to such a file; `python -m tests.simulation.summary FILE...` adds up any number of them.
Of a seed that was run twice the later run counts.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tests.simulation.batch import Result
from tests.simulation.tiering_schedule import ALL_FAULTS

_SHOWN = (
    "records sent", "records acked", "records in the logs", "commits", "group joins", "elections",
    "truncations", "logs started over", "comparisons", "failed starts", "retries not recognised",
    "stale offsets",
)  # fmt: skip
_TIERING = {
    "segments uploaded": "bucket put segment", "manifests": "bucket put manifest", "claims": "bucket put claim",
    "pages": "bucket put page",
    "lists": "bucket list", "reads": "bucket get", "deletions": "bucket delete", "objects deleted": "objects deleted",
    "late puts": "late puts", "late deletions": "late deletes", "local deletions": "local deletions",
    "replicas begun in the middle": "replicas begun in the middle", "log starts raised": "log starts raised",
    "DeleteRecords answered": "DeleteRecords answered", "offset lookups": "offset lookups",
    "jumps back": "jumps back", "traps sprung": "traps sprung",
}  # fmt: skip


class Summary:
    """Adds up results."""

    def __init__(self) -> None:
        self.schedules = 0
        self.failed: list[int] = []
        self.counts: Counter[str] = Counter()
        self.cpu_s = 0.0
        self._virtual_s: list[float] = []
        self._operations: list[int] = []
        self._faults: list[int] = []

    def add(self, result: Result) -> None:
        """Take one more schedule into account."""
        self.schedules += 1
        self.counts += result.counts
        self.cpu_s += result.cpu_s
        self._virtual_s.append(result.virtual_s)
        self._operations.append(result.operations)
        self._faults.append(result.faults)
        if not result.ok:
            self.failed.append(result.seed)

    def lines(self) -> Iterator[str]:
        """Yield the summary as text."""
        number = self.schedules
        if not number:
            yield "no schedules"
            return
        virtual_s = sum(self._virtual_s)
        yield f"{number:,} schedules, {len(self.failed)} failed; {self.cpu_s / number:.2f} s of CPU each"
        yield f"virtual seconds: {virtual_s:,.0f}, at least {min(self._virtual_s):.1f} per schedule"
        yield f"client operations: {_spread(self._operations)}"
        yield f"faults: {_spread(self._faults)}"
        yield ", ".join(f"{name} {self.counts[name]:,}" for name in _SHOWN)
        if self.counts["bucket list"]:
            shown = (f"{name} {self.counts[count]:,}" for name, count in _TIERING.items())
            yield "tiering: " + ", ".join(shown)
        for title, wanted in (("faults", True), ("administration", False)):
            kinds = [
                (name.removeprefix("fault "), count)
                for name, count in sorted(self.counts.items())
                if name.startswith("fault ") and (name.removeprefix("fault ") in ALL_FAULTS) is wanted
            ]
            if kinds:
                yield f"{title}: " + ", ".join(f"{name} {count:,}" for name, count in kinds)
        if self.failed:
            yield f"failing seeds: {' '.join(map(str, sorted(self.failed)))}"


def _spread(values: list[int]) -> str:
    total = sum(values)
    return f"{total:,} ({total / len(values):,.1f} per schedule, at least {min(values):,})"


def to_line(result: Result) -> str:
    """Return a result as one line of JSON."""
    # Not `asdict`, which makes nonsense of a Counter.
    return json.dumps(vars(result), separators=(",", ":"))


def from_line(line: str) -> Result:
    """Return the result that `to_line` wrote. Raises ValueError, KeyError, TypeError on anything else."""
    fields = json.loads(line)
    return Result(**{**fields, "counts": Counter(fields["counts"])})


def read(lines: Iterable[str]) -> dict[int, Result]:
    """Return the last result of every seed. Raises what `from_line` raises."""
    results = (from_line(line) for line in lines)
    return {result.seed: result for result in results}


def main(paths: Sequence[str]) -> int:
    """Print what the files come to; return 1 if a schedule failed."""
    results = read(line for path in paths for line in Path(path).read_text().splitlines())
    summary = Summary()
    for seed in sorted(results):
        summary.add(results[seed])
    for line in summary.lines():
        print(line)
    return 1 if summary.failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
