"""Foreign programs against a running broker: kcat, and the command-line tools of Apache Kafka.

`pytest tests/foreign -m foreign` starts `strandline dev` with one broker. STRANDLINE_FOREIGN_SYSTEM=kafka starts
Apache Kafka instead (to test the tests); STRANDLINE_BOOTSTRAP=host:port uses a running cluster. Without
`-m foreign` nothing here is even imported. With FOREIGN_FACTOR=3 there are three brokers, and three replicas of
every topic. `-rP` shows what every program said.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.foreign.cluster import Cluster

REPOSITORY = Path(__file__).resolve().parents[2]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "foreign: needs kcat, Java, Maven or a running cluster")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    if "foreign" not in (config.getoption("-m") or ""):
        return True
    if str(REPOSITORY) not in sys.path:  # for `benchmarks` and `examples`, which are not installed
        sys.path.insert(0, str(REPOSITORY))
    with warnings.catch_warnings():  # kafka-python's own, on import
        warnings.simplefilter("ignore", DeprecationWarning)
        import kafka  # type: ignore[import-untyped]  # noqa: F401
    return None


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The cluster under test, with topics full of real data on request."""
    from benchmarks.systems import Broker, Kafka, Strandline
    from tests.foreign.cluster import Cluster

    if bootstrap := os.environ.get("STRANDLINE_BOOTSTRAP"):
        yield Cluster(bootstrap, None)
        return
    factor = int(os.environ.get("FOREIGN_FACTOR", "1"))
    config = {"default.replication.factor": str(factor), "min.insync.replicas": str(max(1, factor - 1))}
    cache = REPOSITORY / ".cache"
    cache.mkdir(exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="foreign-", dir=cache))
    kafka = os.environ.get("STRANDLINE_FOREIGN_SYSTEM") == "kafka"
    broker: Broker = Kafka(directory) if kafka else Strandline(directory, brokers=factor, config=config)
    try:
        broker.prepare()
        broker.start()
        before = broker.broker_pids()
        yield Cluster(broker.bootstrap, broker, factor)
        broker.check()
        assert broker.broker_pids()[0] == before[0], f"the broker restarted: {broker.tail()}"
    finally:
        broker.stop()
        shutil.rmtree(directory, ignore_errors=True)
