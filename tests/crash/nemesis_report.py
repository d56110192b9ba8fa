"""What a nemesis run did and found, for people: a line per fault while it runs, a summary at its end."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import median

from tests.crash.faults import Fault
from tests.crash.history import Verdict

HELD_UP_S = 1.0


@dataclass(slots=True)
class Measured:
    """A fault with what it cost. `recovered_s` is None when it took nobody's leader, or writes did not come back."""

    fault: Fault
    recovered_s: float | None
    longest_gap_s: float

    def __str__(self) -> str:
        if not self.fault.partitions:
            return ""
        if self.recovered_s is None:
            return "no write yet"
        return f"next write {self.recovered_s:.2f} s, longest gap {self.longest_gap_s:.2f} s"


@dataclass(slots=True)
class NemesisOutcome:
    """What a run found; nothing found means `ok`."""

    seed: int
    duration_s: float = 0.0
    faults: list[Measured] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    client_errors: Counter[str] = field(default_factory=Counter)
    well_after_s: float | None = None
    """From the end of the last fault until every partition had its leader and a full ISR."""
    held_up_s: float = 0.0
    """Longest time that the nemesis itself did not get to run: on so busy a machine brokers lose their Leases too."""
    logs: str = ""

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.findings and all(verdict.ok for verdict in self.verdicts.values())

    def __str__(self) -> str:
        lines = [
            f"seed {self.seed}  duration {self.duration_s:.0f} s  faults {len(self.faults)}",
            *self._table(),
        ]
        for name, verdict in self.verdicts.items():
            tolerated = ", ".join(f"{rule} {count}" for rule, count in sorted(verdict.passed_over.items()))
            lines.append(f"{name}: {verdict}" + (f"; tolerated: {tolerated}" if tolerated else ""))
        lines.append("  ".join(f"{name} {count}" for name, count in self.counts.items()))
        if self.well_after_s is not None:
            lines.append(f"all replicas in sync {self.well_after_s:.1f} s after the last fault")
        if self.held_up_s > HELD_UP_S:
            lines.append(
                f"the machine held everybody up, for {self.held_up_s:.1f} s at worst: times say little"
            )
        if self.client_errors:
            errors = ", ".join(f"{name} x{count}" for name, count in self.client_errors.most_common())
            lines.append(f"client errors: {errors}")
        lines += [f"FINDING {finding}" for finding in self.findings]
        lines += [f"FINDING in {name}" for name, verdict in self.verdicts.items() if not verdict.ok]
        if self.logs:
            lines.append(self.logs)
        return "\n".join(lines)

    def _table(self) -> Iterable[str]:
        by_kind: dict[str, list[Measured]] = defaultdict(list)
        for measured in self.faults:
            by_kind[measured.fault.kind].append(measured)
        row = "{:<18} {:>5}  {:>12} {:>8}  {:>12} {:>8}"
        yield row.format("fault", "count", "next write s", "", "longest gap", "")
        yield row.format("", "", "median", "max", "median", "max")
        for kind, found in sorted(by_kind.items()):
            recoveries = [measured.recovered_s for measured in found if measured.recovered_s is not None]
            gaps = [measured.longest_gap_s for measured in found if measured.fault.partitions]
            cells = [
                f"{pick(times):.2f}" if times else "-"
                for times in (recoveries, gaps)
                for pick in (median, max)
            ]
            yield row.format(kind, len(found), *cells)
