from __future__ import annotations

from dataclasses import replace
from uuid import UUID

import pytest
from tests.unit.tiered.manifest_support import TOPIC_ID, entry, manifest_of
from tests.unit.tiered.protocol_support import Leader, log_of, successor

from strandline_tiered.keys import ClaimName, ManifestName, SegmentName
from strandline_tiered.leadership import Phase
from strandline_tiered.manifest import PAGE_ENTRIES, TAIL_ENTRIES, PageRef
from strandline_tiered.protocol import may_append
from strandline_tiered.protocol_messages import (
    Damaged,
    Delete,
    Effect,
    Failed,
    ListAll,
    Listed,
    ListManifests,
    LogChanged,
    Look,
    NotFound,
    PageNeeded,
    PutClaim,
    PutManifest,
    PutPage,
    RaiseLogStart,
    ReadManifest,
    ReadPage,
    Release,
    Report,
    ResetLocalLog,
    ScrubDue,
    SegmentUploaded,
    Stored,
    Upload,
)


def kinds(effects: list[Effect]) -> list[type]:
    return [type(effect) for effect in effects]


def tiered(end: int = 30) -> Leader:
    """A leader whose log is tiered through `end`."""
    leader = Leader(local=log_of(end))
    leader.run()
    assert leader.state.tiered_through == end
    return leader


# -- claim, then read --


def test_a_leader_claims_before_it_lists() -> None:
    leader = Leader(local=log_of(10))
    assert leader.asked == [PutClaim(ClaimName(5))]
    leader.hear(LogChanged())
    assert kinds(leader.asked) == [PutClaim]
    leader.answer(PutClaim)
    assert leader.asked == [ListManifests()]


def test_a_claim_of_unknown_outcome_is_stored_again() -> None:
    leader = Leader()
    leader.hear(Failed(leader.take(PutClaim)))
    assert leader.asked == [PutClaim(ClaimName(5))]
    assert leader.state.phase is Phase.CLAIMING


def test_it_loads_the_highest_manifest_below_its_epoch() -> None:
    leader = Leader()
    for name in (ManifestName(3, 9), ManifestName(4, 1), ManifestName(5, 7), ManifestName(6, 1)):
        leader.bucket[name] = replace(manifest_of(), name=name)
    leader.bucket[ClaimName(4)] = b""
    leader.answer(PutClaim)
    leader.answer(ListManifests)
    assert leader.asked == [ReadManifest(ManifestName(4, 1))]


def test_a_manifest_that_was_collected_meanwhile_means_a_higher_one() -> None:
    leader = Leader(local=log_of(30, epochs=((4, 0),)))
    leader.bucket[ManifestName(4, 1)] = manifest_of(entry(0, 10))
    leader.answer(PutClaim)
    leader.answer(ListManifests)
    del leader.bucket[ManifestName(4, 1)]
    later = manifest_of(entry(0, 10), entry(10, 20))
    leader.bucket[ManifestName(4, 2)] = replace(later, name=ManifestName(4, 2))
    leader.answer(ReadManifest)
    assert leader.asked == [ListManifests()]
    leader.run()
    assert leader.spans() == [(0, 10), (10, 20), (20, 30)]


def test_an_empty_bucket_is_a_new_partition() -> None:
    leader = Leader(local=log_of(35))
    leader.run()
    assert leader.spans() == [(0, 10), (10, 20), (20, 30)]
    assert leader.truth.name == ManifestName(5, 2)
    assert leader.done[-1] == Delete((ManifestName(5, 1),))
    assert leader.state.tiered_through == 30


def test_tiering_begins_at_the_log_start() -> None:
    leader = Leader(local=log_of(35, start=10, log_start=13))
    leader.run()
    assert leader.spans() == [(13, 20), (20, 30)]
    assert leader.truth.log_start == 13


def test_an_empty_partition_writes_no_manifest() -> None:
    leader = Leader(local=log_of(5))
    leader.run()
    assert list(leader.bucket) == [ClaimName(5)]
    assert leader.state.tiered_through is None


@pytest.mark.parametrize("effect", [ListManifests, ReadManifest])
def test_reads_are_repeated(effect: type[Effect]) -> None:
    leader = Leader(local=log_of(10, epochs=((4, 0),)))
    leader.bucket[ManifestName(4, 1)] = manifest_of(entry(0, 10))
    while not leader.waits_for(effect):
        leader.carry_out(leader.asked.pop(0))
    failed = leader.take(effect)
    leader.hear(Failed(failed))
    assert leader.asked == [failed]


# -- what cannot be true --


def stuck_with(leader: Leader) -> str:
    leader.run()
    assert leader.state.phase is Phase.STUCK
    assert leader.done[-1] == Report(leader.state.problem)
    assert not any(isinstance(name, ManifestName) and name.leader_epoch == 5 for name in leader.bucket)
    leader.grow(100)
    assert leader.asked == []
    return leader.state.problem


def test_a_hole_between_manifest_and_log_is_reported() -> None:
    leader = Leader(local=log_of(40, start=20, epochs=((4, 0),)))
    leader.bucket[ManifestName(4, 1)] = manifest_of(entry(0, 10))
    assert "ends at 10, the local log begins at 20" in stuck_with(leader)


def test_a_bucket_that_lost_everything_is_reported() -> None:
    assert "ends at 0, the local log begins at 20" in stuck_with(Leader(local=log_of(40, start=20)))


def test_a_manifest_that_knows_more_than_a_cleanly_elected_leader_is_reported() -> None:
    leader = Leader(local=log_of(15, epochs=((4, 0),)))
    leader.bucket[ManifestName(4, 1)] = manifest_of(entry(0, 20))
    assert "the local log agrees to 15" in stuck_with(leader)


def test_a_damaged_manifest_is_not_passed_over() -> None:
    leader = Leader()
    leader.bucket |= {ManifestName(4, 1): manifest_of(entry(0, 20)), ManifestName(4, 2): b"damaged"}
    leader.answer(PutClaim)
    leader.answer(ListManifests)
    read = leader.take(ReadManifest)
    leader.hear(Damaged(read, "wrong checksum"))
    assert stuck_with(leader) == "manifests/0000000004-0000000002.manifest: wrong checksum"


@pytest.mark.parametrize(
    "wrong", [{"topic_id": UUID(int=8)}, {"partition": 4}, {"name": ManifestName(4, 7)}], ids=str
)
def test_a_manifest_in_the_wrong_place_is_reported(wrong: dict[str, object]) -> None:
    leader = Leader(local=log_of(20, epochs=((4, 0),)))
    leader.bucket[ManifestName(4, 1)] = replace(manifest_of(entry(0, 20)), **wrong)  # type: ignore[arg-type]
    stuck_with(leader)


# -- uploads --


def test_only_sealed_and_committed_segments_are_uploaded() -> None:
    leader = Leader(local=replace(log_of(35), high_watermark=29, last_stable_offset=15))
    leader.run()
    assert leader.spans() == [(0, 10)]
    leader.local = replace(leader.local, last_stable_offset=29)
    leader.hear(LogChanged())
    leader.run()
    assert leader.spans() == [(0, 10), (10, 20)]


def test_uploads_at_once_are_bounded_and_become_entries_in_order() -> None:
    leader = Leader(local=log_of(50), max_uploads=3)
    leader.answer(PutClaim)
    leader.answer(ListManifests)
    uploads = [leader.take(Upload) for _ in range(3)]
    assert not leader.asked
    assert [upload.start_offset for upload in uploads] == [0, 10, 20]
    for upload in reversed(uploads[1:]):
        leader.hear(leader.uploaded(upload))
        assert not leader.asked, "what is done but not in order counts, too"
    leader.hear(leader.uploaded(uploads[0]))
    assert leader.waits_for(PutManifest)
    leader.run()
    assert leader.spans() == [(0, 10), (10, 20), (20, 30), (30, 40), (40, 50)]


def test_a_failed_upload_is_planned_again() -> None:
    leader = Leader(local=log_of(10))
    leader.answer(PutClaim)
    leader.answer(ListManifests)
    upload = leader.take(Upload)
    leader.hear(Failed(upload))
    assert leader.asked == [upload]


def test_a_segment_that_covers_the_end_is_uploaded_whole_and_clipped() -> None:
    leader = successor(tiered(30), local=log_of(60, size=25))
    leader.run()
    assert leader.spans() == [(0, 10), (10, 20), (20, 30), (30, 50)]
    last = leader.truth.entries[-1]
    assert (last.name.base_offset, last.start_position) == (25, 50)


# -- write, then look --


def test_nothing_is_released_before_the_look() -> None:
    leader = Leader(local=log_of(10))
    leader.answer(PutClaim)
    leader.answer(ListManifests)
    leader.answer(Upload)
    assert kinds(leader.asked) == [PutManifest]
    leader.answer(PutManifest)
    assert leader.asked == [Look(ManifestName(5, 1))]
    assert leader.state.tiered_through is None
    leader.answer(Look)
    assert leader.asked == [Release(10, 0)]
    assert leader.state.tiered_through == 10


@pytest.mark.parametrize("sign", [ClaimName(6), ManifestName(6, 1)])
def test_a_successor_stops_it(sign: ClaimName | ManifestName) -> None:
    leader = tiered(10)
    leader.grow(20)
    leader.answer(Upload)
    leader.bucket[sign] = b""
    leader.run()
    assert leader.state.phase is Phase.SUPERSEDED
    assert leader.state.tiered_through == 10
    leader.grow(30)
    leader.hear(RaiseLogStart(5))
    assert leader.asked == []


def test_a_failed_look_is_repeated_behind_the_newest_manifest() -> None:
    leader = tiered(10)
    leader.grow(20)
    leader.answer(Upload)
    leader.answer(PutManifest)
    leader.hear(Failed(leader.take(Look)))
    assert leader.asked == [Look(ManifestName(5, 2))]
    leader.run()
    assert leader.state.tiered_through == 20


def test_after_an_unknown_outcome_comes_another_sequence() -> None:
    leader = tiered(10)
    leader.grow(20)
    leader.answer(Upload)
    lost = leader.take(PutManifest)
    leader.hear(Failed(lost))
    assert leader.asked[-1] == PutManifest(replace(lost.manifest, name=ManifestName(5, 3)))
    leader.run()
    assert leader.done[-1] == Delete((ManifestName(5, 1), ManifestName(5, 2))), "it may have landed"
    leader.hear(Stored(lost))
    assert leader.asked == []


def test_a_new_leader_writes_the_manifest_again_before_it_releases() -> None:
    leader = successor(tiered(30))
    leader.run()
    assert leader.truth.name == ManifestName(6, 1)
    assert leader.state.tiered_through == 30
    assert leader.done[-1] == Delete((ManifestName(5, 2),))


def test_while_a_manifest_is_written_changes_wait_for_the_next() -> None:
    leader = tiered(10)
    leader.grow(30)
    leader.answer(Upload)
    first = leader.take(PutManifest)
    leader.answer(Upload)
    assert not leader.waits_for(PutManifest)
    leader.carry_out(first)
    assert leader.waits_for(PutManifest)
    leader.run()
    assert leader.spans() == [(0, 10), (10, 20), (20, 30)]


# -- log start --


def test_objects_are_deleted_behind_a_confirmed_manifest_without_them() -> None:
    leader = tiered(30)
    first = leader.truth.entries[0].name
    leader.hear(RaiseLogStart(15))
    assert leader.state.confirmed_log_start == 0
    leader.answer(PutManifest)
    assert not leader.waits_for(Delete)
    leader.answer(Look)
    assert leader.asked == [Release(30, 15), Delete((first, ManifestName(5, 2)))]
    leader.run()
    assert leader.spans() == [(10, 20), (20, 30)]
    assert leader.truth.log_start == 15


def test_a_log_start_is_not_above_the_high_watermark_and_does_not_fall() -> None:
    leader = tiered(30)
    leader.local = replace(leader.local, high_watermark=25)
    leader.hear(RaiseLogStart(28))
    leader.run()
    assert leader.truth.log_start == 25
    leader.hear(RaiseLogStart(3))
    assert leader.asked == []


def test_a_log_start_beyond_what_is_tiered_moves_uploads_on() -> None:
    leader = tiered(30)
    leader.grow(55)
    leader.hear(RaiseLogStart(45))
    leader.run()
    assert leader.truth.log_start == 45
    assert leader.spans() == [(45, 50)]


def test_an_upload_that_the_log_start_passed_is_garbage() -> None:
    leader = tiered(10)
    leader.grow(30)
    first, second = leader.take(Upload), leader.take(Upload)
    leader.hear(RaiseLogStart(25))
    done = [leader.uploaded(first), leader.uploaded(second)]
    for event in done:
        leader.hear(event)
    leader.run()
    assert leader.spans() == [(25, 30)]
    assert done[0].entry.name not in leader.bucket
    assert done[1].entry.name in leader.bucket


def test_a_log_start_that_the_log_knows_is_taken_over() -> None:
    leader = successor(tiered(30), local=log_of(30, log_start=12))
    leader.run()
    assert leader.truth.log_start == 12
    assert leader.spans() == [(10, 20), (20, 30)]


def test_failed_deletions_are_repeated() -> None:
    leader = tiered(30)
    leader.hear(RaiseLogStart(15))
    leader.answer(PutManifest)
    leader.answer(Look)
    delete = leader.take(Delete)
    leader.hear(Failed(delete))
    assert leader.asked[-1] == delete


# -- pages --


def test_many_entries_spill_and_come_back_for_retention() -> None:
    count = PAGE_ENTRIES + TAIL_ENTRIES + 1
    leader = tiered(10 * count)
    leader.run()
    (page,) = (part for part in leader.truth.parts if isinstance(part, PageRef))
    assert page.count == PAGE_ENTRIES
    assert leader.truth.entry_count == count
    leader.hear(RaiseLogStart(page.start_offset))
    leader.run()
    assert leader.truth.parts[0] == page
    leader.hear(RaiseLogStart(page.start_offset + 25))
    leader.run()
    assert leader.truth.parts[0].start_offset == page.start_offset + 20
    assert not any(isinstance(part, PageRef) for part in leader.truth.parts)
    assert page.name not in leader.bucket
    segments = {name for name in leader.bucket if isinstance(name, SegmentName)}
    assert segments == {part.name for part in leader.truth.parts}


def test_retention_may_ask_for_the_first_page() -> None:
    leader = tiered(10)
    leader.hear(PageNeeded())
    assert leader.asked == [], "there is none"
    count = PAGE_ENTRIES + TAIL_ENTRIES + 1
    leader = tiered(10 * count)
    page = next(part for part in leader.truth.parts if isinstance(part, PageRef))
    leader.hear(RaiseLogStart(page.start_offset))
    leader.run()
    leader.hear(PageNeeded())
    leader.hear(PageNeeded())
    assert leader.asked == [ReadPage(page)]
    leader.run()
    assert leader.truth.parts[0].start_offset == page.start_offset
    assert leader.truth.entry_count == count - PAGE_ENTRIES
    assert leader.truth.parts == leader.truth.entries


def test_a_lost_page_is_reported_and_uploads_go_on() -> None:
    count = PAGE_ENTRIES + TAIL_ENTRIES + 1
    leader = tiered(10 * count)
    page = next(part for part in leader.truth.parts if isinstance(part, PageRef))
    del leader.bucket[page.name]
    leader.hear(RaiseLogStart(page.start_offset + 25))
    leader.run()
    assert Report(f"{page.name} is gone") in leader.done
    leader.grow(10 * count + 10)
    leader.run()
    assert leader.state.tiered_through == 10 * count + 10
    assert leader.done.count(ReadPage(page)) == 1


def test_a_failed_page_is_stored_again() -> None:
    leader = tiered(10 * (PAGE_ENTRIES + TAIL_ENTRIES))
    leader.grow(10 * (PAGE_ENTRIES + TAIL_ENTRIES) + 10)
    leader.answer(Upload)
    page = leader.take(PutPage)
    leader.hear(Failed(page))
    assert page in leader.asked


# -- scrub --


def test_a_scrub_collects_only_what_lower_epochs_left() -> None:
    leader = successor(tiered(30))
    leader.run()
    orphans = [SegmentName(0, epoch, UUID(int=99)) for epoch in (5, 6, 7)]
    leader.bucket |= dict.fromkeys((*orphans, ManifestName(4, 2), ClaimName(4)), b"")
    leader.hear(ScrubDue())
    leader.run()
    assert ManifestName(4, 2) not in leader.bucket
    assert orphans[0] in leader.bucket, "a manifest was there that may name it"
    leader.hear(ScrubDue())
    leader.run()
    left = {name for name in leader.bucket if isinstance(name, SegmentName)}
    assert left == {*orphans[1:], *(part.name for part in leader.truth.parts)}
    assert ClaimName(6) in leader.bucket


def test_a_scrub_needs_a_manifest_of_its_own() -> None:
    leader = Leader(local=log_of(5))
    leader.bucket[SegmentName(0, 4, UUID(int=1))] = b""
    leader.run()
    leader.hear(ScrubDue())
    assert kinds(leader.asked) == [PutManifest]
    leader.run()
    leader.hear(ScrubDue())
    assert leader.asked == [ListAll()]
    leader.run()
    assert not any(isinstance(name, SegmentName) for name in leader.bucket)


def test_a_scrub_that_sees_a_successor_collects_nothing() -> None:
    leader = tiered(10)
    leader.bucket[SegmentName(0, 4, UUID(int=1))] = b""
    leader.bucket[ClaimName(6)] = b""
    before = dict(leader.bucket)
    leader.hear(ScrubDue())
    leader.run()
    assert leader.state.phase is Phase.SUPERSEDED
    assert leader.bucket == before


def test_a_scrub_that_fails_may_be_asked_for_again() -> None:
    leader = tiered(10)
    leader.hear(ScrubDue())
    leader.hear(ScrubDue())
    leader.hear(Failed(leader.take(ListAll)))
    assert leader.asked == []
    leader.hear(ScrubDue())
    assert leader.asked == [ListAll()]


# -- resumed leaders --


def test_a_leader_that_resumes_its_epoch_claims_and_reads_and_writes_nothing_else() -> None:
    former = tiered(30)
    leader = replace(former, may_write=False, asked=[], done=[])
    leader.local = log_of(50)
    assert leader.asked == [PutClaim(ClaimName(5))]
    leader.answer(PutClaim)
    assert leader.asked == [ListManifests()]
    leader.run()
    assert leader.state.phase is Phase.READY
    assert leader.state.published == former.truth
    leader.hear(LogChanged())
    leader.hear(RaiseLogStart(5))
    leader.hear(ScrubDue())
    assert leader.asked == []
    assert leader.state.tiered_through is None


# -- unclean elections --


def test_an_unclean_leader_starts_again_at_the_manifest_end_and_waits_with_appends() -> None:
    former = tiered(30)
    leader = successor(former, local=log_of(15), recovering=True)
    for kind in (PutClaim, ListManifests, ReadManifest):
        assert not may_append(leader.state)
        leader.answer(kind)
    reset = leader.take(ResetLocalLog)
    assert (reset.start_offset, reset.log_start, reset.epochs) == (30, 0, former.truth.epochs)
    assert reset.last == former.truth.parts[-1]
    leader.local = log_of(30, start=30)
    leader.answer(PutManifest)
    assert not may_append(leader.state)
    leader.answer(Look)
    assert may_append(leader.state)


def test_an_unclean_leader_with_other_records_drops_them_and_uploads_none() -> None:
    leader = successor(tiered(30), local=log_of(40, epochs=((1, 0), (3, 25))), recovering=True)
    for kind in (PutClaim, ListManifests, ReadManifest):
        leader.answer(kind)
    assert leader.waits_for(ResetLocalLog)
    assert not leader.waits_for(Upload), "these are records that it drops"
    assert leader.take(PutManifest).manifest.high_watermark == 30


def test_an_unclean_leader_starts_again_where_records_were_deleted_beyond_the_manifest_end() -> None:
    former = tiered(30)
    former.local = log_of(45)
    former.hear(RaiseLogStart(42))
    former.run()
    assert (former.truth.end_offset, former.truth.log_start) == (30, 42)
    # Its log agrees with all that is in the bucket; but what it appended at 41 would be deleted already.
    leader = successor(former, local=log_of(41), recovering=True)
    for kind in (PutClaim, ListManifests, ReadManifest):
        leader.answer(kind)
    reset = leader.take(ResetLocalLog)
    assert (reset.start_offset, reset.log_start) == (42, 42)
    stuck = successor(former, local=log_of(41))
    stuck.run()
    assert stuck.state.phase is Phase.STUCK


def test_a_log_start_that_only_the_local_disk_knows_holds_when_it_starts_again() -> None:
    leader = successor(
        tiered(30), local=log_of(60, start=20, log_start=50, epochs=((3, 20),)), recovering=True
    )
    for kind in (PutClaim, ListManifests, ReadManifest):
        leader.answer(kind)
    reset = leader.take(ResetLocalLog)
    assert (reset.start_offset, reset.log_start) == (50, 50)
    assert leader.take(PutManifest).manifest.upload_from == 50


def test_a_log_that_was_interrupted_when_it_started_again_does_so_once_more() -> None:
    leader = successor(tiered(30), local=log_of(30, start=30, epochs=()), recovering=True)
    for kind in (PutClaim, ListManifests, ReadManifest):
        leader.answer(kind)
    assert leader.take(ResetLocalLog).start_offset == 30
    knowing = successor(tiered(30), local=log_of(30, start=30, epochs=((1, 0),)), recovering=True)
    knowing.run()
    assert not any(isinstance(effect, ResetLocalLog) for effect in knowing.done)


def test_an_unclean_leader_with_the_same_records_keeps_them() -> None:
    leader = successor(tiered(30), local=log_of(40, epochs=((1, 0), (3, 30))), recovering=True)
    leader.run()
    assert not any(isinstance(effect, ResetLocalLog) for effect in leader.done)
    assert leader.spans()[-1] == (30, 40)


def test_an_unclean_leader_of_an_empty_bucket_writes_a_manifest_first() -> None:
    leader = Leader(local=log_of(5), recovering=True)
    assert not may_append(leader.state)
    leader.run()
    assert leader.truth.parts == ()
    assert may_append(leader.state)


def test_a_late_leader_that_finds_only_higher_manifests_is_superseded() -> None:
    leader = Leader(local=log_of(40, start=20))
    leader.bucket |= {ClaimName(6): b"", ManifestName(6, 1): manifest_of(entry(0, 20))}
    leader.run()
    assert leader.state.phase is Phase.SUPERSEDED


def test_answers_to_old_questions_change_nothing() -> None:
    leader = tiered(10)
    before = leader.state
    for event in (
        Stored(PutClaim(ClaimName(5))),
        Listed(ListManifests(), (ManifestName(9, 9),)),
        Listed(Look(ManifestName(5, 1)), (ClaimName(9),)),
        NotFound(ReadManifest(ManifestName(4, 1))),
        SegmentUploaded(entry(70, 80)),
        Failed(ListAll()),
    ):
        leader.hear(event)
    assert leader.state == before
    assert leader.asked == []
    assert leader.state.topic_id == TOPIC_ID
