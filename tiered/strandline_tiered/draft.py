"""What the next manifest will hold: uploads, log start and pages (design 7.1, 7.2).

Who uses it: `protocol`, `claim`. Nothing here is known to anybody else before it is published.
"""

from __future__ import annotations

from dataclasses import replace

from strandline_tiered.keys import Name
from strandline_tiered.leadership import Context, Leadership, PendingUpload, Step, with_garbage
from strandline_tiered.manifest import Entry, PageRef
from strandline_tiered.manifest_events import (
    EntriesRemoved,
    LogStartRaised,
    Spilled,
    Unspilled,
    Uploaded,
    apply,
    removable,
    spillable,
)
from strandline_tiered.protocol_messages import Effect, PutPage, ReadPage, Upload


def with_upload(state: Leadership, entry: Entry) -> Leadership:
    """Note that a segment is in the bucket."""
    return replace(
        state,
        uploads=tuple(
            replace(pending, entry=entry)
            if (pending.start_offset, pending.end_offset) == (entry.start_offset, entry.end_offset)
            else pending
            for pending in state.uploads
        ),
    )


def absorb(state: Leadership, context: Context) -> Step:
    """Let the draft have what is uploaded and follows it."""
    assert state.draft is not None
    draft, uploads = state.draft, state.uploads
    useless: list[Name] = []
    while uploads and uploads[0].entry is not None and uploads[0].start_offset <= draft.upload_from:
        entry, uploads = uploads[0].entry, uploads[1:]
        if entry.end_offset <= draft.upload_from:
            useless.append(entry.name)
        else:
            draft = apply(draft, Uploaded(entry.clipped(draft.upload_from), context.local.epochs))
    is_dirty = state.is_dirty or draft is not state.draft
    state = replace(state, draft=draft, uploads=uploads, is_dirty=is_dirty)
    return with_garbage(state, useless, context.rules), ()


def plan_uploads(state: Leadership, context: Context) -> Step:
    """Ask for uploads of what is sealed and committed behind the draft, as many as may be under way at once."""
    assert state.draft is not None
    local = context.local
    end = context.rules.uploadable_end(local.high_watermark, local.last_stable_offset)
    cursor = state.draft.upload_from
    uploads = list(state.uploads)
    planned: list[Effect] = []
    while True:
        pending = next((one for one in uploads if one.start_offset <= cursor < one.end_offset), None)
        if pending is not None:
            cursor = pending.end_offset
            continue
        if len(uploads) >= context.max_uploads:
            break
        segment = next((one for one in local.sealed if one.base_offset <= cursor < one.end_offset), None)
        if segment is None or segment.end_offset > end:
            break
        uploads.append(PendingUpload(cursor, segment.end_offset))
        planned.append(Upload(cursor, segment))
    if not planned:
        return state, ()
    uploads.sort(key=lambda one: one.start_offset)
    return replace(state, uploads=tuple(uploads)), tuple(planned)


def raise_log_start(state: Leadership, log_start: int, context: Context) -> Leadership:
    """Let the next manifest have a log start, and no entries below it."""
    assert state.draft is not None
    if log_start <= state.draft.log_start:
        return state
    state = replace(state, draft=apply(state.draft, LogStartRaised(log_start)), is_dirty=True)
    return _forget_entries(state, context)


def _forget_entries(state: Leadership, context: Context) -> Leadership:
    assert state.draft is not None
    gone = [entry.name for entry in removable(state.draft) if not entry.origin]
    state = replace(state, draft=apply(state.draft, EntriesRemoved()))
    return with_garbage(state, gone, context.rules)


def need_page(state: Leadership) -> Step:
    """Ask for the first part, if that is a page."""
    assert state.draft is not None
    first = state.draft.parts[0] if state.draft.parts else None
    if state.is_unspilling or not isinstance(first, PageRef):
        return state, ()
    return replace(state, is_unspilling=True), (ReadPage(first),)


def plan_pages(state: Leadership, context: Context) -> Step:
    """Ask for a page to be stored where entries are many, and for the first one when the log start is in it."""
    draft = state.draft
    assert draft is not None
    effects: tuple[Effect, ...] = ()
    if draft.parts and draft.parts[0].start_offset < draft.log_start:
        state, effects = need_page(state)
    entries = () if state.is_spilling else spillable(draft, context.tail_entries, context.page_entries)
    return (replace(state, is_spilling=True), (*effects, PutPage(entries))) if entries else (state, effects)


def page_stored(state: Leadership, page: PageRef, context: Context) -> Leadership:
    """Let the draft refer to a page instead of its entries."""
    draft = state.draft
    assert draft is not None
    state = replace(state, is_spilling=False)
    if not page.holds(spillable(draft, context.tail_entries, context.page_entries)):
        # Retention was faster.
        return with_garbage(state, [page.name], context.rules)
    return replace(state, draft=apply(draft, Spilled(page)), is_dirty=True)


def page_read(state: Leadership, page: PageRef, entries: tuple[Entry, ...], context: Context) -> Leadership:
    """Let the draft have the entries of its first page again."""
    assert state.draft is not None
    assert page == state.draft.parts[0], "only the first page is read, and nothing passes it"
    state = replace(state, is_unspilling=False, draft=apply(state.draft, Unspilled(entries)), is_dirty=True)
    if not page.origin:
        state = with_garbage(state, [page.name], context.rules)
    return _forget_entries(state, context)
