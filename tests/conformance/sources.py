"""Sources of the suites and the environments they run in, all below `.cache/conformance` and nothing of it in git.

A suite's tests come from its published source distribution, through pip. Packages that leave their tests out are run
from the source tree of the same release, if somebody has put that at `sources/NAME-VERSION` (or below the folder that
CONFORMANCE_SOURCES names); else they are reported as not run.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Final

from tests.conformance.suites import PIP_TEST_TOOLS, SUITES, Suite

REPOSITORY: Final = Path(__file__).resolve().parents[2]
CACHE: Final = REPOSITORY / ".cache" / "conformance"
_INSTALL_TIMEOUT_S: Final = 600


class SourceMissingError(Exception):
    """A suite cannot be had here; the message says what would help."""


def fresh_tree(suite: Suite, target: Path) -> Path:
    """Unpack the suite's sources into `target`, replacing what an earlier run left there.

    Raises SourceMissingError.
    """
    shutil.rmtree(target, ignore_errors=True)
    if not suite.tests_in_package:
        shutil.copytree(_release_tree(suite), target, ignore=shutil.ignore_patterns(".git", "__pycache__"))
        return target
    archive = _source_distribution(suite)
    unpacked = target.with_name(target.name + ".unpacked")
    shutil.rmtree(unpacked, ignore_errors=True)
    with tarfile.open(archive) as file:
        file.extractall(unpacked, filter="data")
    (top,) = unpacked.iterdir()
    top.rename(target)
    unpacked.rmdir()
    return target


def _release_tree(suite: Suite) -> Path:
    folders = [CACHE / "sources"]
    if given := os.environ.get("CONFORMANCE_SOURCES"):
        folders.insert(0, Path(given))
    for folder in folders:
        if all((folder / suite.release / test).exists() for test in suite.tests):
            return folder / suite.release
    raise SourceMissingError(
        f"the source distribution of {suite.package} leaves the tests out; unpack the sources of release "
        f"{suite.version} as .cache/conformance/sources/{suite.release}"
    )


def _source_distribution(suite: Suite) -> Path:
    folder = CACHE / "downloads" / suite.release
    if not list(folder.glob("*.tar.gz")):
        # fmt: off
        _run([sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-binary", ":all:",
              "--no-deps", "--dest", str(folder), f"{suite.package}=={suite.version}"])
        # fmt: on
    (archive,) = folder.glob("*.tar.gz")
    return archive


def python_environment() -> Path:
    """Return a virtualenv with the clients under test and what their suites import; made once per set of versions."""
    wanted = sorted(
        {*PIP_TEST_TOOLS, *_clients(), *(r for suite in SUITES.values() for r in suite.requirements)}
    )
    digest = hashlib.sha256("\n".join([sys.version, *wanted]).encode()).hexdigest()[:12]
    environment = CACHE / f"venv-{digest}"
    stamp = environment / ".installed"
    if not stamp.exists():
        shutil.rmtree(environment, ignore_errors=True)
        _run([sys.executable, "-m", "venv", str(environment)])
        pip = [str(environment / "bin" / "python"), "-m", "pip", "install"]
        _run([*pip, "--quiet", "--disable-pip-version-check", *wanted])
        stamp.touch()
    return environment


def _clients() -> list[str]:
    return [f"{suite.package}=={suite.version}" for suite in SUITES.values() if suite.kind == "pytest"]


def node_environment(suite: Suite) -> Path:
    """Return a folder whose `node_modules` has the suite's package. Raises SourceMissingError without npm."""
    folder = CACHE / f"node-{suite.release}"
    if shutil.which("npm") is None or shutil.which("node") is None:
        raise SourceMissingError("needs node and npm")
    if not (folder / "node_modules" / suite.package).exists():
        folder.mkdir(parents=True, exist_ok=True)
        # fmt: off
        _run(["npm", "install", "--silent", "--no-audit", "--no-fund", "--no-save", "--prefix", str(folder),
              f"{suite.package}@{suite.version}"])
        # fmt: on
    return folder


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_TIMEOUT_S, check=False)
    if done.returncode != 0:
        raise SourceMissingError(f"{' '.join(command[:5])} ...: {done.stderr.strip()[-1000:]}")
