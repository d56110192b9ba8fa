"""Style as a test: what a reader would otherwise have to look for by hand."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PACKAGES = {
    "operator": "strandline_operator",
    "broker": "strandline_broker",
    "tiered": "strandline_tiered",
}
SOURCES = sorted(path for folder in PACKAGES for path in (ROOT / folder).rglob("*.py"))
PYTHON_FILES = SOURCES + sorted(
    path for folder in ("tests", "benchmarks", "examples", "e2e") for path in (ROOT / folder).rglob("*.py")
)
MAX_MODULE_LINES = 600
MAX_FUNCTION_LINES = 70
# Whole words that say that something is not done, or names this field does not use.
BANNED = re.compile(r"\b(TODO|FIXME|XXX|HACK|NotImplementedError|master|slave|whitelist|blacklist)\b")
# Arguments of other people's programs, whose words they are: `ip link set PORT master BRIDGE`.
FOREIGN_WORDS = ('"master", "bridge',)


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("folder", PACKAGES)
def test_each_top_level_folder_holds_one_package_and_no_loose_module(folder: str) -> None:
    entries = {entry.name for entry in (ROOT / folder).iterdir() if entry.name != "__pycache__"}
    assert entries == {PACKAGES[folder]}, (
        f"{folder}/ may hold only {PACKAGES[folder]}: a loose module shadows others"
    )


def test_the_standard_operator_module_is_not_shadowed() -> None:
    code = "import operator, strandline_operator; print(operator.itemgetter(0)('ok'), 'strandline' in operator.__file__)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert result.stdout.split() == ["o", "False"]


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_modules_stay_readable(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= MAX_MODULE_LINES, "split it: it has a second reason to exist by now"
    tree = ast.parse(text)
    assert ast.get_docstring(tree), "say why this module exists and who may call it"
    long = [
        f"{node.name} ({node.end_lineno - node.lineno + 1} lines)"
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno >= MAX_FUNCTION_LINES
    ]
    assert not long, f"functions over {MAX_FUNCTION_LINES} lines: {long}"


@pytest.mark.parametrize("path", [path for path in PYTHON_FILES if path != Path(__file__)], ids=relative)
def test_nothing_is_left_undone(path: Path) -> None:
    found = [
        f"{number}: {line.strip()}"
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if BANNED.search(line) and not any(words in line for words in FOREIGN_WORDS)
    ]
    assert not found


@cache
def users_of_words() -> dict[str, set[Path]]:
    """Return which files hold a word."""
    users: dict[str, set[Path]] = {}
    for path in PYTHON_FILES:
        for word in set(re.findall(r"\w+", path.read_text(encoding="utf-8"))):
            users.setdefault(word, set()).add(path)
    return users


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_every_module_is_imported_by_somebody(path: Path) -> None:
    if path.name not in ("__init__.py", "__main__.py"):
        assert users_of_words().get(path.stem, set()) - {path}, "a dead file: nobody names it"


def test_tests_do_not_sleep() -> None:
    sleeping = [
        f"{relative(path)}:{number}"
        for path in sorted((ROOT / "tests" / "unit").rglob("*.py"))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if re.search(r"\btime\.sleep\(", line)
    ]
    assert not sleeping, "await the condition instead"


def test_the_wheel_holds_exactly_our_packages() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == [
        f"{folder}/{package}" for folder, package in PACKAGES.items()
    ]
