"""Write, then look: how manifests are published, and what may be deleted behind them (design 7.3).

Who uses it: `protocol`.
"""

from __future__ import annotations

from dataclasses import replace

from strandline_tiered.keys import ClaimName, ManifestName, Name, PageName, SegmentName
from strandline_tiered.leadership import MAX_CONDEMNED, Context, Garbage, Leadership, Step, superseded
from strandline_tiered.manifest import PageRef
from strandline_tiered.manifest_events import Stamped, apply
from strandline_tiered.protocol_messages import Delete, ListAll, Look, PutManifest, Release
from strandline_tiered.protocol_rules import RULES, Rules

MAX_DELETE = 1000
"""Objects in one request, as S3 has it."""


def write(state: Leadership, context: Context) -> Step:
    """Write the draft, unless a manifest is being written, or nothing is new."""
    assert state.draft is not None
    assert state.published is not None
    if not state.is_dirty or state.writing is not None:
        return state, ()
    former = ManifestName(state.leader_epoch, state.sequence) if state.sequence else state.published.name
    stored = (
        state.published.name.sequence if context.rules.is_own(state.published.name, state.leader_epoch) else 0
    )
    sequence = context.rules.next_sequence(state.sequence, stored)
    name = ManifestName(state.leader_epoch, sequence)
    stamped = Stamped(name, context.local.high_watermark, context.now_ms)
    manifest = apply(state.draft, stamped)
    garbage = state.garbage
    if former.sequence > 0 and former < name:
        garbage = (*garbage, Garbage(former, sequence))[:MAX_CONDEMNED]
    state = replace(state, sequence=sequence, writing=manifest, is_dirty=False, garbage=garbage)
    return state, (PutManifest(manifest),)


def look(state: Leadership, context: Context) -> Step:
    """Look behind the newest manifest that is stored, unless that was done."""
    published = state.published
    assert published is not None
    if state.looking is not None or not context.rules.is_own(published.name, state.leader_epoch):
        return state, ()
    if state.confirmed is not None and state.confirmed.name >= published.name:
        return state, ()
    return replace(state, looking=published), (Look(published.name),)


def looked(state: Leadership, names: tuple[Name, ...], context: Context) -> Step:
    """Confirm the manifest that was looked behind, and condemn what it does not hold; or stop: a successor is there."""
    assert state.looking is not None
    if context.rules.shows_successor(names, state.leader_epoch):
        return superseded(state)
    confirmed = state.looking
    ripe = [one.name for one in state.garbage if one.since <= confirmed.name.sequence]
    rest = tuple(one for one in state.garbage if one.since > confirmed.name.sequence)
    state = replace(state, confirmed=confirmed, looking=None, garbage=rest)
    state = replace(state, condemned=(*state.condemned, *ripe)[:MAX_CONDEMNED])
    return state, (Release(confirmed.end_offset, confirmed.log_start),)


def delete(state: Leadership, context: Context) -> Step:
    """Ask for deletions, one request at a time."""
    if state.deleting or not state.condemned:
        return state, ()
    names = state.condemned[:MAX_DELETE]
    return replace(state, deleting=names, condemned=state.condemned[len(names) :]), (Delete(names),)


def scrub(state: Leadership, context: Context) -> Step:
    """Ask for a listing of everything, once a manifest of this epoch is stored."""
    assert state.published is not None
    if not context.rules.is_own(state.published.name, state.leader_epoch):
        # The next scrub will find a manifest of this epoch.
        return replace(state, is_dirty=True), ()
    return replace(state, is_scrubbing=True), (ListAll(),)


def scrubbed(state: Leadership, names: tuple[Name, ...], context: Context) -> Step:
    """Condemn what no manifest references: the listing came behind a manifest of this epoch, and is the look as well."""
    if context.rules.shows_successor(names, state.leader_epoch):
        return superseded(state)
    state = replace(state, is_scrubbing=False)
    condemned = uncollected(state, names, context.rules)
    already = {*state.condemned, *state.deleting}
    new = [name for name in condemned if name not in already]
    return replace(state, condemned=(*state.condemned, *new)[:MAX_CONDEMNED]), ()


def uncollected(state: Leadership, names: tuple[Name, ...], rules: Rules = RULES) -> tuple[Name, ...]:
    """Return what a scrub of this listing collects: manifests, claims, objects and pages of lower epochs.

    Objects and pages only where the listing shows no manifest of a lower epoch that could name them: those go first. A page
    that is still referenced hides which objects its entries name; where there is one, objects below its end stay.
    """
    published = state.published
    assert published is not None
    records = [
        name
        for name in names
        if isinstance(name, ManifestName | ClaimName) and name.leader_epoch < state.leader_epoch
    ]
    if any(isinstance(name, ManifestName) for name in records):
        return tuple(records)
    referenced: set[Name] = set()
    hidden_below = 0
    for manifest in (state.draft, state.published, state.writing):
        for part in manifest.parts if manifest is not None else ():
            referenced.add(part.name)
            if isinstance(part, PageRef):
                hidden_below = max(hidden_below, part.end_offset)
    objects = [
        name
        for name in names
        if rules.is_collectable(name.leader_epoch, state.leader_epoch)
        and name not in referenced
        and (
            isinstance(name, PageName) or (isinstance(name, SegmentName) and name.base_offset >= hidden_below)
        )
    ]
    return (*records, *objects)
