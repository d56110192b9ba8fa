"""Coverage-guided fuzzing: `python -m tests.fuzz.run --seconds 60 [target]...` (needs `pip install atheris`).

Each target runs in a process of its own, since the fuzzer ends its process; what it learned stays in
`.cache/fuzz/<target>` for the next run, and an input that brings a target down is kept there as
`crash-...`. Such an input belongs, with the repair, among the seeds of its target. Exit status 1 means
findings.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import logging
import subprocess
import sys
from pathlib import Path

CORPUS = Path(".cache/fuzz")
MEMORY_MIB = 1024
INPUT_TIMEOUT_S = 10


def child(name: str, seconds: int) -> None:
    """Fuzz one target in this process; does not return."""
    atheris = importlib.import_module("atheris")  # optional, and without type information

    with atheris.instrument_imports(include=["strandline_broker", "strandline_tiered", "kio"]):
        from tests.fuzz.targets import TARGETS
    logging.disable()  # refusals are logged, and there will be many
    target = next(target for target in TARGETS if target.name == name)
    corpus = CORPUS / name
    corpus.mkdir(parents=True, exist_ok=True)
    for seed in target.seeds:
        (corpus / hashlib.sha1(seed, usedforsecurity=False).hexdigest()).write_bytes(seed)
    options = [
        sys.argv[0],
        str(corpus),
        f"-artifact_prefix={corpus}/",
        f"-max_total_time={seconds}",
        "-max_len=8192",
        f"-rss_limit_mb={MEMORY_MIB}",
        f"-timeout={INPUT_TIMEOUT_S}",
        "-print_final_stats=1",
        "-verbosity=0",
    ]
    atheris.Setup(options, target.run)
    atheris.Fuzz()


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=int, default=60, help="per target")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("targets", nargs="*", help="names; all without")
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.targets[0], arguments.seconds)
        return 0
    from tests.fuzz.targets import TARGETS

    names = [target.name for target in TARGETS]
    unknown = set(arguments.targets) - set(names)
    if unknown:
        parser.error(f"no target {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    failed = [name for name in arguments.targets or names if not _run(name, arguments.seconds)]
    print(f"findings: {', '.join(failed) or 'none'}")  # noqa: T201 - what this program is for
    return 1 if failed else 0


def _run(name: str, seconds: int) -> bool:
    command = [sys.executable, "-m", "tests.fuzz.run", "--child", "--seconds", str(seconds), name]
    done = subprocess.run(command, capture_output=True, text=True, check=False, errors="replace")
    output = (done.stderr + done.stdout).splitlines()
    runs = next((line.split()[-1] for line in output if "number_of_executed_units" in line), "?")
    print(f"{name}: {'ok' if done.returncode == 0 else 'FINDING'}, {runs} inputs", flush=True)  # noqa: T201
    if done.returncode != 0:
        told = [line for line in output if not line.startswith(("INFO:", "WARNING:", "stat::"))]
        print("\n".join(told[-60:]))  # noqa: T201
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
