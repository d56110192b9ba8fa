"""The tiering protocol of one leader epoch (design 7.3): claim, then read; write, then look.

Who uses it: the archiver of a broker; the model checker. Pure: `step(state, event, local log, time) -> (state, effects)`.

1. A new leader stores its *claim*. Only then it lists, and loads the highest manifest below its epoch.
2. It uploads from the manifest's end on, and writes manifests of its own, one after the other, each with a new sequence.
3. Behind each manifest it *looks*: it lists what higher epochs wrote. If there is nothing, whoever leads later will find
   this manifest or one that follows from it, because their claims come later than the manifest. So it is *confirmed*: what
   it holds may be deleted locally, what it no longer holds, in the bucket. Whatever is deleted was authorised this way.
4. If there is a claim or manifest of a higher epoch, this leader is superseded, and stops.

After an unclean election the local log may lack what the manifest has, or have other records. Then it starts again, empty,
where the next upload begins, and takes records only behind a confirmed manifest of its own: a deposed leader's manifest may
land late, and would otherwise contradict them.
"""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

from strandline_tiered import claim, draft, publication
from strandline_tiered.keys import ClaimName
from strandline_tiered.leadership import Context, Leadership, LocalLog, Phase, Step, stuck
from strandline_tiered.protocol_messages import (
    Damaged,
    Delete,
    Deleted,
    Effect,
    Event,
    Failed,
    ListAll,
    Listed,
    ListManifests,
    Look,
    ManifestRead,
    NotFound,
    PageNeeded,
    PageRead,
    PageStored,
    PutClaim,
    PutManifest,
    PutPage,
    RaiseLogStart,
    ReadManifest,
    ReadPage,
    Report,
    ResetLocalLog,
    ScrubDue,
    SegmentUploaded,
    Stored,
    Upload,
)
from strandline_tiered.protocol_rules import RULES, Rules


def begin(
    topic_id: UUID, partition: int, leader_epoch: int, *, may_write: bool = True, recovering: bool = False
) -> Step:
    """Return the leadership of an epoch that begins, and what is to be done first.

    `may_write`: whether this incarnation got this epoch. Who resumes it claims it, too, for the claim of the life before
    may not have been stored: a deposed leader could still confirm a manifest, and delete, and who only reads not know it.
    `recovering`: whether the election was unclean, or an earlier one was, from which nobody has recovered.
    """
    state = Leadership(topic_id, partition, leader_epoch, may_write, recovering, Phase.CLAIMING)
    return state, (PutClaim(ClaimName(leader_epoch)),)


def may_append(state: Leadership, rules: Rules = RULES) -> bool:
    """Whether the leader may take records from producers."""
    return rules.may_append(state.recovering, state.confirmed is not None)


_MOVES = (
    draft.absorb,
    draft.plan_uploads,
    draft.plan_pages,
    publication.write,
    publication.look,
    publication.delete,
)


def step(state: Leadership, event: Event, context: Context) -> Step:
    """Return the state after an event, and what is to be done."""
    state, effects = _hear(state, event, context)
    for effect in effects:
        if isinstance(effect, ResetLocalLog):
            # What the log was is of no concern any more: none of it may be uploaded.
            context = replace(context, local=_started_again(effect))
    if state.phase is Phase.READY and state.may_write:
        for move in _MOVES:
            state, more = move(state, context)
            effects += more
    return state, effects


def _started_again(reset: ResetLocalLog) -> LocalLog:
    start = reset.start_offset
    return LocalLog(reset.log_start, start, start, start, start, reset.epochs)


def _hear(state: Leadership, event: Event, context: Context) -> Step:
    if state.phase in (Phase.SUPERSEDED, Phase.STUCK):
        return state, ()
    match event:
        case Stored(PutClaim()) if state.phase is Phase.CLAIMING:
            return replace(state, phase=Phase.LISTING), (ListManifests(),)
        case Stored(PutManifest(manifest)) if manifest == state.writing:
            return replace(state, writing=None, published=manifest), ()
        case Listed(ListManifests(), names) if state.phase is Phase.LISTING:
            return claim.listed(state, names, context)
        case Listed(Look(name), names) if state.looking is not None and name == state.looking.name:
            return publication.looked(state, names, context)
        case Listed(ListAll(), names) if state.is_scrubbing:
            return publication.scrubbed(state, names, context)
        case ManifestRead(name, manifest) if state.phase is Phase.LOADING and name == state.loading:
            if manifest.name != name:
                return stuck(state, f"{name} says that it is {manifest.name}")
            return claim.loaded(state, manifest, context)
        case NotFound(ReadManifest()) if state.phase is Phase.LOADING:
            # Superseded by a higher one meanwhile, and collected: that one is there now.
            return replace(state, phase=Phase.LISTING, loading=None), (ListManifests(),)
        case Damaged(ReadManifest(name), problem) if state.phase is Phase.LOADING:
            return stuck(state, f"{name}: {problem}")
        case SegmentUploaded(entry):
            return draft.with_upload(state, entry), ()
        case RaiseLogStart(log_start) if state.phase is Phase.READY and state.may_write:
            return draft.raise_log_start(state, min(log_start, context.local.high_watermark), context), ()
        case PageNeeded() if state.phase is Phase.READY and state.may_write:
            return draft.need_page(state)
        case PageStored(page):
            return draft.page_stored(state, page, context), ()
        case PageRead(page, entries):
            return draft.page_read(state, page, entries, context), ()
        case NotFound(ReadPage(page)):
            # Retention goes no further in this epoch; everything else does.
            return replace(state, problem=f"{page.name} is gone"), (Report(f"{page.name} is gone"),)
        case Damaged(ReadPage(page), problem):
            return replace(state, problem=problem), (Report(f"{page.name}: {problem}"),)
        case ScrubDue() if state.phase is Phase.READY and state.may_write and not state.is_scrubbing:
            return publication.scrub(state, context)
        case Deleted(names) if names == state.deleting:
            return replace(state, deleting=()), ()
        case Failed(effect):
            return _failed(state, effect)
        case _:  # LogChanged, and answers to questions that are no longer open
            return state, ()


def _failed(state: Leadership, effect: Effect) -> Step:
    match effect:
        case PutClaim() | ListManifests() | ReadManifest() | ReadPage():
            return state, (effect,)
        case Delete(names) if names == state.deleting:
            return state, (effect,)
        case Upload(start_offset):
            kept = tuple(pending for pending in state.uploads if pending.start_offset != start_offset)
            return replace(state, uploads=kept), ()
        case PutManifest(manifest) if manifest == state.writing:
            return replace(state, writing=None, is_dirty=True), ()
        case Look():
            return replace(state, looking=None), ()
        case PutPage():
            return replace(state, is_spilling=False), ()
        case ListAll():
            return replace(state, is_scrubbing=False), ()
        case _:
            return state, ()
