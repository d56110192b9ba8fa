"""Apache Kafka from Maven: the jars of its server and command-line tools, and how to run their classes.

Callers: `benchmarks.systems` (the Kafka broker), `tests/foreign` (Kafka's own tools against any broker).
The jars land in `.cache/` of the repository, which git ignores. Maven's own settings decide where they come
from.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path

KAFKA_VERSION = "4.2.0"
REPOSITORY = Path(__file__).resolve().parent.parent
JARS = REPOSITORY / ".cache" / f"kafka-{KAFKA_VERSION}"
_POM = REPOSITORY / "benchmarks" / "kafka" / "pom.xml"
_LOG4J = REPOSITORY / "benchmarks" / "kafka" / "log4j2.properties"
_COMPLETE = JARS / "complete"  # the pom, written last: an interrupted or outdated copy is repeated
_MINIMUM_JAVA = 17  # of the 4.x broker and tools
_FETCH_TIMEOUT_S = 900


class KafkaUnavailableError(Exception):
    """Apache Kafka cannot run here; the message says why, for a "skipped" line."""


def ensure_jars() -> Path:
    """Folder with all jars, fetched through Maven on the first call.

    Raises:
        KafkaUnavailableError: no suitable Java, no Maven, or Maven failed.

    """
    _require_java()
    wanted = _POM.read_text()
    if _COMPLETE.exists() and _COMPLETE.read_text() == wanted:
        return JARS
    maven = shutil.which("mvn")
    if maven is None:
        raise KafkaUnavailableError(
            "Apache Kafka's jars are fetched with Maven, and there is no mvn on the PATH"
        )
    if JARS.exists():
        shutil.rmtree(JARS)
    JARS.mkdir(parents=True)

    command = [
        maven,
        "-q",
        "-B",
        "-f",
        str(_POM),
        f"-Dkafka.version={KAFKA_VERSION}",
        "dependency:copy-dependencies",
        f"-DoutputDirectory={JARS}",
        "-DincludeScope=runtime",
    ]

    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_FETCH_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as slow:
        raise KafkaUnavailableError(f"mvn did not finish within {_FETCH_TIMEOUT_S} s") from slow
    if done.returncode != 0:
        raise KafkaUnavailableError(
            f"mvn exited with {done.returncode}: {(done.stdout + done.stderr)[-2000:]}"
        )
    _COMPLETE.write_text(wanted)
    return JARS


@cache
def _require_java() -> None:
    java = shutil.which("java")
    if java is None:
        raise KafkaUnavailableError("Apache Kafka needs Java, and there is no java on the PATH")
    shown = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=60, check=False)
    found = re.search(r'version "(\d+)', shown.stderr + shown.stdout)
    if found is None or int(found.group(1)) < _MINIMUM_JAVA:
        raise KafkaUnavailableError(f"Apache Kafka {KAFKA_VERSION} needs Java {_MINIMUM_JAVA} or newer")


def java_command(
    main_class: str, arguments: Sequence[str], *, jvm: Sequence[str] = ("-Xmx256M",)
) -> list[str]:
    """Return a command line for a class in the jars; the default heap is that of Kafka's tool scripts."""
    jars = ensure_jars()

    return ["java", *jvm, f"-Dlog4j2.configurationFile={_LOG4J}", "-cp", f"{jars}/*", main_class, *arguments]
