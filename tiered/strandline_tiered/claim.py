"""Claim, then read: how a leader comes to the manifest that it goes on from (design 7.3).

Who uses it: `protocol`.
"""

from __future__ import annotations

from dataclasses import replace

from strandline_tiered.draft import raise_log_start
from strandline_tiered.epochs import agree_until
from strandline_tiered.keys import ManifestName, Name
from strandline_tiered.leadership import Context, Leadership, LocalLog, Phase, Step, stuck, superseded
from strandline_tiered.manifest import Manifest, empty_manifest
from strandline_tiered.protocol_messages import Effect, ReadManifest, ResetLocalLog


def listed(state: Leadership, names: tuple[Name, ...], context: Context) -> Step:
    """Load the highest manifest below the own epoch, or begin with nothing where there is none."""
    rules = context.rules
    below = [
        name
        for name in names
        if isinstance(name, ManifestName) and rules.is_loadable(name, state.leader_epoch, state.may_write)
    ]
    if below:
        loading = max(below)
        return replace(state, phase=Phase.LOADING, loading=loading), (ReadManifest(loading),)
    if rules.shows_successor(names, state.leader_epoch):
        # Its manifest may be the only one that is left.
        return superseded(state)
    nothing = empty_manifest(state.topic_id, state.partition, context.local.log_start)
    return loaded(state, nothing, context)


def loaded(state: Leadership, manifest: Manifest, context: Context) -> Step:
    """Begin with this manifest, unless it contradicts the local log. After an unclean election the log may have to go."""
    local, rules = context.local, context.rules
    if (manifest.topic_id, manifest.partition) != (state.topic_id, state.partition):
        return stuck(state, f"{manifest.name} is of {manifest.topic_id}, partition {manifest.partition}")
    if local.start_offset > max(manifest.upload_from, local.log_start):
        problem = (
            f"{manifest.name} ends at {manifest.end_offset}, the local log begins at {local.start_offset}"
        )
        return stuck(state, problem)
    agreed = min(manifest.end_offset, local.end_offset)
    if local.start_offset < manifest.end_offset and manifest.epochs:
        agreed = agree_until(manifest.epochs, manifest.end_offset, local.epochs, local.end_offset)
    effects: tuple[Effect, ...] = ()
    lacks = rules.must_start_again(agreed, manifest.end_offset)
    # Where the log start lies above the end, what is appended below it would be deleted already.
    lacks = lacks or rules.must_start_again(local.end_offset, manifest.upload_from)
    if lacks and not state.recovering:
        problem = f"{manifest.name} ends at {manifest.end_offset}; the local log agrees to {agreed}"
        if agreed >= manifest.end_offset:
            problem = f"{manifest.name} has log start {manifest.log_start}; the local log ends at {local.end_offset}"
        return stuck(state, problem)
    if lacks or (state.recovering and _knows_nothing(state, manifest, local)):
        last = manifest.parts[-1] if manifest.parts else None
        log_start = max(manifest.log_start, local.log_start)
        effects = (ResetLocalLog(max(manifest.upload_from, log_start), log_start, manifest.epochs, last),)
    state = replace(
        state,
        phase=Phase.READY,
        loading=None,
        draft=manifest,
        published=manifest,
        is_dirty=bool(manifest.parts) or state.recovering,
    )
    if state.may_write:
        state = raise_log_start(state, local.log_start, context)
    return state, effects


def _knows_nothing(state: Leadership, manifest: Manifest, local: LocalLog) -> bool:
    """Whether a log is empty and has no history, as one that was interrupted when it started again."""
    is_empty = local.start_offset == local.end_offset
    return (
        is_empty
        and bool(manifest.epochs)
        and all(entry.epoch >= state.leader_epoch for entry in local.epochs)
    )
