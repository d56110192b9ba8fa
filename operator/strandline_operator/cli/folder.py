"""A folder of manifests, applied and followed: GitOps without Kubernetes. Used by `strandline dev --manifests`.

Files are looked at every second, and read again when their size or time changed. What cannot be parsed or is refused is
reported once and changes nothing.

Pruning: when this process saw an object in the folder and it is gone in two looks in a row, the object is deleted, as
Argo CD or Flux with pruning would; its deletionPolicy decides about the records. Three things never delete: a folder that
is away, a folder with a file that cannot be read or parsed (what it holds is unknown), and files that vanished while
nobody looked (a later start only reports such objects: absence is no order to delete).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from strandline_broker.cluster.model import TOPIC
from strandline_broker.cluster.store import ClusterStore, Conflict, NotFound, StoreError
from strandline_operator.cli.applying import Applied, apply_document
from strandline_operator.validation import Document, FolderContent, ManifestError, load_path
from strandline_operator.validation.manifests import manifest_files

POLL_INTERVAL_S = 1.0
ANNOTATION_SOURCE = "strandline.io/manifest"
LOOKS_BEFORE_PRUNING = 2

Key = tuple[str, str]
Signature = tuple[tuple[str, int, int, int], ...]


class FolderSync:
    """Brings the store in line with one folder. `say` gets one line per event."""

    def __init__(self, path: Path, store: ClusterStore, say: Callable[[str], None]) -> None:
        self._path = path
        self._store = store
        self._say = say
        self._signature: Signature | None = None
        # What was applied from here: the manifest as it was, to see changes.
        self._applied: dict[Key, dict[str, Any]] = {}
        self._missing: dict[Key, int] = {}
        self._said: set[str] = set()

    async def follow(self) -> None:
        """Look again every second until cancelled."""
        while True:
            await asyncio.sleep(POLL_INTERVAL_S)
            try:
                await self.sync()
            except StoreError as error:
                self._say_once(f"the cluster store is away: {error}")
                self._signature = None  # whatever was missed is applied later

    async def sync(self) -> list[str]:
        """Look once. Returns the names of the Topics that are in the store and declared in the folder."""
        signature = _signature(self._path)
        if signature is None:
            self._say_once(f"{self._path} is away; nothing is changed until it is back")
            return []
        if signature == self._signature and not self._missing:
            return []
        content = load_path(self._path)
        if self._signature is None:
            for line in content.foreign:
                self._say(f"skipped {line}: not a strandline.io object")
        if signature != self._signature:
            self._said.clear()
        for problem in content.problems:
            self._say_once(f"refused: {problem}")
        present = await self._apply(content)
        await self._prune(content)
        if self._signature is None:
            await self._report_leftovers({document.key for document in content.documents})
        self._signature = signature
        return present

    async def _apply(self, content: FolderContent) -> list[str]:
        present = []
        for document in content.documents:
            kind, name = document.key
            if self._applied.get(document.key) != document.object:
                marked = _marked(document)
                try:
                    outcome = await apply_document(self._store, marked)
                except ManifestError as error:
                    self._say_once(f"refused: {error}")
                    continue
                self._applied[document.key] = document.object
                if outcome is not Applied.UNCHANGED:
                    self._say(f"{kind.lower()}/{name} {outcome}")
            if kind == TOPIC:
                present.append(name)
        return present

    async def _prune(self, content: FolderContent) -> None:
        declared = {document.key for document in content.documents}
        self._missing = {
            key: self._missing.get(key, 0) + 1
            for key in self._applied
            if key not in declared and not content.bad_files
        }
        for key, looks in list(self._missing.items()):
            if looks < LOOKS_BEFORE_PRUNING:
                continue
            del self._missing[key]
            del self._applied[key]
            kind, name = key
            if kind != TOPIC:
                self._say(
                    f"{kind.lower()}/{name} is no longer in {self._path}; the running cluster stays as it is"
                )
            elif await _delete(self._store, name):
                self._say(f"topic/{name} deleted: its manifest is gone")

    async def _report_leftovers(self, declared: set[Key]) -> None:
        objects, _ = await self._store.list(TOPIC)
        for obj in objects:
            metadata = obj["metadata"]
            if (
                ANNOTATION_SOURCE in (metadata.get("annotations") or {})
                and (TOPIC, metadata["name"]) not in declared
            ):
                self._say(
                    f"topic/{metadata['name']} came from {metadata['annotations'][ANNOTATION_SOURCE]}, which is gone; it "
                    "stays (delete it with Kafka's tools, or restore the file and remove it while this runs)"
                )

    def _say_once(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._say(text)


def _marked(document: Document) -> Document:
    """Return the document with a note of where it came from, by which a later start knows it."""
    metadata = document.object["metadata"]
    annotations = {**(metadata.get("annotations") or {}), ANNOTATION_SOURCE: document.file}
    return Document(document.file, {**document.object, "metadata": {**metadata, "annotations": annotations}})


async def _delete(store: ClusterStore, name: str) -> bool:
    try:
        obj = await store.get(TOPIC, name)
        await store.delete_if(TOPIC, name, uid=obj["metadata"]["uid"])
    except (NotFound, Conflict):
        return False  # somebody else deleted it, or made another one under that name, which is theirs
    return True


def _signature(path: Path) -> Signature | None:
    """Return what tells whether anything changed, or None when the folder is away."""
    if not path.is_dir():
        return None
    found = []
    for file in manifest_files(path):
        try:
            stat = file.stat()
        except FileNotFoundError:
            continue
        found.append((str(file), stat.st_mtime_ns, stat.st_size, stat.st_ino))
    return tuple(found)
