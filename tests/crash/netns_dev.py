"""`strandline dev` with every broker in a network namespace of its own; arguments as JSON, see `NetnsDev`.

The supervisor, the controller and the store stay on the host: what is cut are brokers from each other and from clients.
Everything but the commands and addresses of the brokers is `strandline dev`'s own.
"""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from strandline_operator.cli.dev import DevOptions, former_incarnations, make_processes
from strandline_operator.cli.dev_session import run_session
from strandline_operator.cli.layout import DataDir
from strandline_operator.cli.processes import stop_orphans


@dataclass(frozen=True, slots=True)
class NetnsDev:
    """What to start; `namespaces` and `addresses` are those of brokers 0, 1, ..."""

    data_dir: str
    port: int
    placeholder: str
    namespaces: list[str]
    addresses: list[str]
    assignments: list[str]

    def to_json(self) -> str:
        """Return the command line argument."""
        return json.dumps(asdict(self))

    @property
    def bootstrap(self) -> str:
        """What clients connect to."""
        return ",".join(f"{address}:{self.port + i}" for i, address in enumerate(self.addresses))


def run(spec: NetnsDev) -> int:
    """Run the supervisor; return its exit code."""
    layout = DataDir(Path(spec.data_dir))
    layout.acquire()
    stop_orphans(layout, _note)
    layout.ensure_token()
    options = DevOptions(
        brokers=len(spec.addresses),
        host=spec.placeholder,
        advertise=spec.placeholder,
        data_dir=layout,
        manifests=None,
        flush="Fsync",
        listeners=(),
        assignments=tuple(spec.assignments),
        plain=True,
        ports=[(spec.port + i, spec.port + 1000 + i) for i in range(len(spec.addresses))],
        resumed=layout.store_file.exists(),
    )
    former = former_incarnations(layout) if options.resumed else {}
    processes = make_processes(options)
    program = shutil.which("ip")
    assert program is not None, "iproute2 made the namespaces"
    for process in processes:
        namespace, address = spec.namespaces[process.broker_id], spec.addresses[process.broker_id]
        command = [
            # The second one is the listener between brokers.
            word.replace(spec.placeholder, address).replace("://127.0.0.1:", f"://{address}:")
            for word in process.command
        ]
        process.command = [program, "netns", "exec", namespace, *command]
        process.start()
    try:
        return run_session(options, processes, former)
    finally:
        for process in processes:
            process.signal(9)
        layout.release()


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - the supervisor's output is read by tests


if __name__ == "__main__":
    sys.exit(run(NetnsDev(**json.loads(sys.argv[1]))))
