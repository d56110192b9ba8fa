"""Cut brokers off under load, then check everything: `python -m tests.crash.netns_cluster --minutes 10`. Needs root.

As `nemesis`, with every broker in a network namespace of its own (`netns`): links are cut in both directions or in one,
between brokers or to clients as well, and healed; links become slow; other faults come on top. The cluster store is a file
on the host and stays in reach. Exit status 1 means findings.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from functools import partial
from pathlib import Path

from tests.crash import netns
from tests.crash.faults import Site
from tests.crash.nemesis import add_arguments, options_of, read_plan, run, run_program, say
from tests.crash.nemesis_cluster import NemesisCluster, free_port
from tests.crash.nemesis_load import TOPIC
from tests.crash.nemesis_report import NemesisOutcome
from tests.crash.netns import Netns
from tests.crash.netns_dev import NetnsDev

DEFAULT_KINDS = ("partition", "partition", "partition", "kill", "pause", "restart", "leaders")


class NetnsCluster(NemesisCluster):
    """A nemesis' cluster in the namespaces of `network`, which must be there for as long as it runs."""

    def __init__(self, data_dir: Path, network: Netns, *, assignments: tuple[str, ...] = ()) -> None:
        port = free_port(network.brokers)
        super().__init__(data_dir, brokers=network.brokers, port=port)
        numbers = range(network.brokers)
        self._spec = NetnsDev(
            data_dir=str(data_dir),
            port=port,
            placeholder=network.placeholder,
            namespaces=[network.namespace(broker) for broker in numbers],
            addresses=[network.address(broker) for broker in numbers],
            assignments=list(assignments),
        )
        self._command = [sys.executable, "-m", "tests.crash.netns_dev", self._spec.to_json()]

    def start(self) -> None:
        """See `DevCluster.start`; the ready line knows nothing of namespaces."""
        super().start()
        self.bootstrap = self._spec.bootstrap


def main() -> None:
    """Run from the command line."""
    logging.basicConfig(level=logging.CRITICAL)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    add_arguments(parser, DEFAULT_KINDS)
    arguments = parser.parse_args()
    plan = read_plan(arguments, parser)
    if "full-disk" in plan.kinds:
        parser.error("--faults full-disk: needs `python -m tests.crash.nemesis`")
    if not netns.available():
        say("SKIPPED: needs root, iproute2 and network namespaces")
        return
    say(f"seed {plan.load.seed}, faults {', '.join(plan.kinds)}")
    options = [option for option in options_of(plan, arguments.option) if option != "--config"]

    def torment() -> NemesisOutcome:
        with (
            tempfile.TemporaryDirectory(prefix="strandline-netns-") as scratch,
            Netns(plan.brokers) as network,
        ):
            root = arguments.data_dir or Path(scratch)
            cluster = NetnsCluster(root / "cluster", network, assignments=tuple(options))
            site = partial(Site, topic=TOPIC, network=network)
            return run(plan, cluster, root / "clients", say=say, make_site=site)

    run_program(torment)


if __name__ == "__main__":
    main()
