"""What a scrub would collect, as somebody sees it who leads nothing: a report, never a deletion (design 7.3). Pure.

Who uses it: `strandline tier scrub`. Collecting needs a leadership: a manifest of one's own, and a look behind it. From
outside nobody can tell an object that is lost from one that a leader is about to publish, or that a request under way is
about to write. What is named here is decided by the leaders' own rule, `publication.uncollected`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from strandline_tiered.keys import ClaimName, ManifestName, Name, PageName, SegmentName
from strandline_tiered.leadership import Leadership, Phase
from strandline_tiered.listing import PartitionListing
from strandline_tiered.manifest import Manifest
from strandline_tiered.publication import uncollected


class Leftover(NamedTuple):
    """An object that the newest manifest does not need. `waits_for` says why it stays for now; empty: nothing."""

    name: Name
    size: int
    waits_for: str = ""


def leftovers(listing: PartitionListing, manifest: Manifest, named: Iterable[Name]) -> list[Leftover]:
    """Return what the newest manifest does not need, in the order of keys.

    `named`: the objects that its entries name, those in pages included, and its pages.
    """
    epoch = manifest.name.leader_epoch
    leader = Leadership(
        listing.keys.topic_id,
        listing.keys.partition,
        epoch,
        may_write=True,
        recovering=False,
        phase=Phase.READY,
        draft=manifest,
        published=manifest,
    )
    records = {name for name in listing.sizes if isinstance(name, ManifestName | ClaimName)}
    # Objects are collected once the manifests of lower epochs are gone.
    due = set(uncollected(leader, tuple(listing.sizes)))
    due.update(uncollected(leader, tuple(name for name in listing.sizes if name not in records)))
    needed = set(named)
    found = []
    for name, size in listing.sizes.items():
        if name in due and name not in needed:
            found.append(Leftover(name, size))
        elif isinstance(name, SegmentName | PageName) and name not in needed:
            found.append(Leftover(name, size, _reason(name, epoch)))
        elif isinstance(name, ManifestName) and name < manifest.name:
            found.append(
                Leftover(name, size, f"the leader of epoch {epoch}, which deletes its own manifests itself")
            )
    return found


def _reason(name: SegmentName | PageName, epoch: int) -> str:
    if name.leader_epoch >= epoch:
        return f"a leader of a later epoch than {name.leader_epoch}: one of this epoch may publish it yet"
    return "retention to load the pages of old entries, which hide what they name from a scrub"
