"""The foreign suites: where each comes from, what it needs, and which of its tests talk to a broker.

A suite is run as its authors published it. `ours` names what stands in, from outside, for what it would start by itself
(a broker in a container, a Kafka distribution): a pytest plugin of `plugins/`, or nothing for scripts of our own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

# What the suites were last run with by their authors.
PIP_TEST_TOOLS: Final = ("pytest==9.0.2", "pytest-asyncio==1.3.0", "pytest-mock", "pytest-timeout", "py")


@dataclass(frozen=True, slots=True)
class Suite:
    """One suite. `reference` is what a well-known fake broker reaches: (passed, total), where that is known."""

    name: str
    package: str
    version: str
    tests_in_package: bool = True
    tests: tuple[str, ...] = ()
    plugin: str = ""
    options: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    requirements: tuple[str, ...] = ()
    timeout_s: float = 1200.0
    reference: tuple[int, int] | None = None
    kind: str = "pytest"
    notes: tuple[str, ...] = field(default=())

    @property
    def release(self) -> str:
        """Name of the folder that holds the sources of this release."""
        return f"{self.package}-{self.version}"


KAFKA_PYTHON: Final = Suite(
    name="kafka-python",
    package="kafka-python",
    version="3.0.12",
    tests=("test/integration",),
    plugin="kafka_python_suite",
    environment=(("KAFKA_VERSION", "4.2.0"),),
    requirements=("lz4", "python-snappy", "zstandard", "crc32c"),
    reference=(49, 67),
)

AIOKAFKA: Final = Suite(
    name="aiokafka",
    package="aiokafka",
    version="0.14.0",
    tests_in_package=False,
    tests=("tests",),
    plugin="aiokafka_suite",
    options=("--docker-image", "strandline:2.13_4.2.0", "--timeout", "180"),
    requirements=("cramjam",),
    reference=(167, 197),
)

CONFLUENT: Final = Suite(
    name="confluent-kafka",
    package="confluent-kafka",
    version="2.15.0",
    tests_in_package=False,
    tests=("tests/integration/admin", "tests/integration/consumer", "tests/integration/producer"),
    plugin="confluent_suite",
    options=("--timeout", "120"),
    requirements=(
        "async-timeout",
        "attrs",
        "authlib",
        "avro",
        "cachetools",
        "certifi",
        "fastavro",
        "httpx",
        "jsonschema",
        "orjson",
        "protobuf",
        "requests",
        "urllib3",
    ),
    reference=(19, 24),
)

KCAT: Final = Suite(name="kcat", package="kcat", version="any", kind="kcat")

KAFKAJS: Final = Suite(name="kafkajs", package="kafkajs", version="2.2.4", kind="kafkajs")

SUITES: Final = {suite.name: suite for suite in (KAFKA_PYTHON, CONFLUENT, AIOKAFKA, KCAT, KAFKAJS)}
