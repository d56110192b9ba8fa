"""Manifests from files and folders: parsed, validated and defaulted, each problem with its file.

Called by the command line and by the folder watcher of `strandline dev`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from strandline_operator.validation.definitions import API_VERSION, GROUP, USER_KINDS, definitions
from strandline_operator.validation.problems import ManifestError, Problem, did_you_mean
from strandline_operator.validation.rules import rule_problems
from strandline_operator.validation.structural import (
    apply_defaults,
    duplicate_items,
    schema_problems,
    unknown_fields,
)

MANIFEST_SUFFIXES = (".yaml", ".yml", ".json")
MAX_FILE_BYTES = 4 * 2**20
MAX_FILES = 5_000

_METADATA_FIELDS = (
    "name", "generateName", "namespace", "labels", "annotations", "finalizers", "ownerReferences", "uid",
    "resourceVersion", "generation", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds",
    "managedFields", "selfLink",
)  # fmt: skip
_DNS_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")


@dataclass(frozen=True, slots=True)
class Document:
    """One valid manifest: the object with defaults applied, and the file it came from."""

    file: str
    object: dict[str, Any]

    @property
    def key(self) -> tuple[str, str]:
        """Kind and name."""
        return self.object["kind"], self.object["metadata"]["name"]


@dataclass(slots=True)
class FolderContent:
    """What a file or folder holds: our objects, the problems, and the files that had any."""

    documents: list[Document] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)

    @property
    def bad_files(self) -> set[str]:
        """Files in which something was refused: what they hold is not known completely."""
        return {problem.file for problem in self.problems}


def validate(manifest: Any, old: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return a Cluster or Topic manifest with defaults applied. Raises ManifestError with every problem found.

    `old` is the stored object that the manifest would replace: with it, transition rules are checked too. Neither
    argument is changed. `status` is dropped, as the API server does for kinds with a status subresource.
    """
    name = _object_name(manifest)
    problems = list(_envelope_problems(manifest))
    if problems:
        raise ManifestError([problem.of(name) for problem in problems])
    kind = manifest["kind"]
    schema = definitions()[kind].schema
    problems += unknown_fields(manifest, schema)
    plain = {key: value for key, value in manifest.items() if key != "status"}
    result: dict[str, Any] = apply_defaults(plain, schema)
    problems += schema_problems(kind, result)
    problems += duplicate_items(result, schema)
    if not problems:
        previous = () if old is None else (apply_defaults(dict(old), schema),)
        problems += rule_problems(result, schema, *previous)
    if problems:
        raise ManifestError([problem.of(name) for problem in dict.fromkeys(problems)])
    return result


def _object_name(manifest: Any) -> str:
    if not isinstance(manifest, dict):
        return ""
    metadata = manifest.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    return f"{manifest.get('kind', 'object')} {name or '(unnamed)'}"


def _envelope_problems(manifest: Any) -> Iterator[Problem]:
    if not isinstance(manifest, dict):
        yield Problem("is not a Kubernetes object; it needs apiVersion, kind, metadata and spec")
        return
    if manifest.get("apiVersion") != API_VERSION:
        yield Problem(f'"{manifest.get("apiVersion")}" is not served; use {API_VERSION}', "apiVersion")
    kind = str(manifest.get("kind"))
    if kind not in definitions():
        yield Problem(
            f'"{kind}" is unknown{did_you_mean(kind, USER_KINDS)}; use {" or ".join(USER_KINDS)}', "kind"
        )
    elif kind not in USER_KINDS:
        yield Problem(
            f"{kind} is the operator's own record; declare a {' or a '.join(USER_KINDS)} instead", "kind"
        )
    yield from _metadata_problems(manifest.get("metadata"))


def _metadata_problems(metadata: Any) -> Iterator[Problem]:
    if not isinstance(metadata, dict):
        yield Problem("missing; add metadata.name", "metadata")
        return
    name = metadata.get("name")
    if not isinstance(name, str) or not name:
        yield Problem("missing; give the object a name", "metadata.name")
    elif len(name) > 253 or not _DNS_SUBDOMAIN.fullmatch(name):
        yield Problem(
            f'"{name}" is not a Kubernetes name: lower-case letters, digits, "-" and ".", beginning and ending with a '
            "letter or digit; for other topic names set spec.topicName",
            "metadata.name",
        )
    for key in metadata:
        if key not in _METADATA_FIELDS:
            yield Problem(f"unknown field{did_you_mean(str(key), _METADATA_FIELDS)}", f"metadata.{key}")
    for mapping in ("labels", "annotations"):
        values = metadata.get(mapping) or {}
        if not isinstance(values, dict):
            yield Problem("must be a mapping of strings", f"metadata.{mapping}")
            continue
        for key, value in values.items():
            if not isinstance(value, str):
                yield Problem(f'must be a string; put it in quotes: "{value}"', f"metadata.{mapping}[{key}]")


def load_text(text: str | bytes, file: str) -> FolderContent:
    """Parse and validate every document of one YAML or JSON text; never raises for its content."""
    content = FolderContent()
    try:
        documents = list(_parse(text))
    except _bad_yaml() as error:
        content.problems.append(Problem(f"is not valid YAML: {' '.join(str(error).split())}", file=file))
        return content
    for manifest in documents:
        if (
            isinstance(manifest, dict)
            and manifest.get("kind") == "List"
            and isinstance(manifest.get("items"), list)
        ):
            items = manifest["items"]
        else:
            items = [manifest]
        for item in items:
            _load_one(item, file, content)
    return content


def _load_one(manifest: Any, file: str, content: FolderContent) -> None:
    if manifest is None:
        return
    version = str(manifest.get("apiVersion", "")) if isinstance(manifest, dict) else ""
    if version and version.partition("/")[0] != GROUP:
        content.foreign.append(f"{file}: {manifest.get('kind')} ({version})")
        return
    try:
        content.documents.append(Document(file, validate(manifest)))
    except ManifestError as error:
        content.problems += [problem.at(file) for problem in error.problems]


def load_path(path: Path) -> FolderContent:
    """Read a manifest file, or every manifest below a folder (hidden names left out), in the order of their paths.

    Two documents that declare the same object are a problem of the later one. Raises FileNotFoundError.
    """
    content = FolderContent()
    files = manifest_files(path)
    if len(files) > MAX_FILES:
        content.problems.append(
            Problem(f"holds more than {MAX_FILES} manifests; split the folder", file=str(path))
        )
        return content
    for file in files:
        name = str(file.relative_to(path)) if path.is_dir() else str(path)
        try:
            if file.stat().st_size > MAX_FILE_BYTES:
                content.problems.append(
                    Problem(f"is larger than {MAX_FILE_BYTES} bytes; split it", file=name)
                )
                continue
            text = file.read_bytes()
        except OSError as error:
            content.problems.append(Problem(f"cannot be read: {error.strerror}", file=name))
            continue
        found = load_text(text, name)
        content.documents += found.documents
        content.problems += found.problems
        content.foreign += found.foreign
    _refuse_duplicates(content)
    return content


def manifest_files(path: Path) -> list[Path]:
    """Return the manifest files that `path` is or holds, sorted. Raises FileNotFoundError."""
    if path.is_dir():
        return sorted(
            file
            for file in path.rglob("*")
            if file.suffix in MANIFEST_SUFFIXES
            and file.is_file()
            and not any(part.startswith(".") for part in file.relative_to(path).parts)
        )
    if path.exists():
        return [path]
    raise FileNotFoundError(f"{path}: no such file or folder")


def _refuse_duplicates(content: FolderContent) -> None:
    first: dict[tuple[str, str], str] = {}
    kept: list[Document] = []
    for document in content.documents:
        kind, name = document.key
        if document.key in first:
            content.problems.append(
                Problem(
                    f"is declared in {first[document.key]} too; keep one of them",
                    "",
                    f"{kind} {name}",
                    document.file,
                )
            )
            continue
        first[document.key] = document.file
        kept.append(document)
    content.documents = kept


def _bad_yaml() -> type[Exception]:
    import yaml

    return yaml.YAMLError


def _parse(text: str | bytes) -> Iterator[Any]:
    """Yield the documents of a YAML stream; a key that appears twice is an error, as kubectl makes it."""
    import yaml

    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    class Loader(base):  # type: ignore[misc]
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            seen: set[str] = set()
            for key_node, _ in node.value:
                key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
                if key is not None and key != "<<" and key in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f'the key "{key}" appears twice', key_node.start_mark
                    )
                if key is not None:
                    seen.add(key)
            return super().construct_mapping(node, deep=deep)

    yield from yaml.load_all(text, Loader=Loader)
