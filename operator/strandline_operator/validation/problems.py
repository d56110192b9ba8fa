"""Problems as a user reads them: file, object, field, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with one manifest; `message` says what is wrong and what to do."""

    message: str
    field: str = ""
    object_name: str = ""
    file: str = ""

    def __str__(self) -> str:
        return ": ".join(part for part in (self.file, self.object_name, self.field, self.message) if part)

    def of(self, object_name: str) -> Problem:
        """Return the problem with the object it belongs to."""
        return replace(self, object_name=object_name)

    def at(self, file: str) -> Problem:
        """Return the problem with the file it was found in."""
        return replace(self, file=file)


class ManifestError(ValueError):
    """A manifest was refused; `problems` has every reason found, at least one."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        assert problems, "an error without a problem explains nothing"
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ` (did you mean "x"?)` for the known word nearest to `word`, else an empty string."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    near = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return f' (did you mean "{by_lower[near[0]]}"?)' if near else ""


def child_path(parent: str, key: str | int) -> str:
    """Return the path of a child field as Kubernetes writes it: `spec.config[retention.ms]`, `spec.listeners[0]`."""
    if isinstance(key, int):
        return f"{parent}[{key}]"
    if not key.replace("_", "").replace("-", "").isalnum():
        return f"{parent}[{key}]"
    return f"{parent}.{key}" if parent else key
