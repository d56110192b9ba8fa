"""Which lines of the product some seeds run, per package: `run.py --coverage` starts it, before anything is imported."""

from __future__ import annotations

import importlib
import sys
from collections import defaultdict


def main(first: int, end: int) -> int:
    """Print the table; return 1 if a seed failed."""
    measuring = importlib.import_module("coverage").Coverage(
        source_pkgs=["strandline_broker", "strandline_operator"], data_file=None
    )
    measuring.start()
    # Only now: definitions count as lines that ran.
    run_seed = importlib.import_module("tests.simulation.batch").run_seed
    failed = [seed for seed in range(first, end) if not run_seed((seed, "")).ok]
    measuring.stop()
    packages: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for path in measuring.get_data().measured_files():
        _, statements, _, missing, _ = measuring.analysis2(path)
        if not statements:
            continue
        name = "strandline_" + ".".join(path.rpartition("strandline_")[2].split("/")[:-1])
        packages[name][0] += len(statements)
        packages[name][1] += len(statements) - len(missing)
    for name, (total, covered) in sorted(packages.items()):
        print(f"{name:40} {covered:6} of {total:6} lines, {100 * covered / total:3.0f} %")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
