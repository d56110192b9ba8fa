"""Every rule, switched off: what the checker must then find, and how large the world must be for it.

Bounds are the smallest that show the rule's need; a larger world finds the same trace more slowly.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from tests.model.settings import Bounds, Switches

from strandline_broker.cluster.transitions import RULES


@dataclass(frozen=True, slots=True)
class Mutant:
    """One rule switched off, and the world in which that loses a record."""

    name: str
    rule: str
    switches: Switches
    bounds: Bounds = field(default_factory=Bounds)


SMALL = Bounds(log_length=1, late_fetches=False, late_views=False, stale_leases=False)

MUTANTS = (
    Mutant(
        "leader-counts-unsynced",
        "with Fsync the leader counts its own synced end",
        Switches(leader_counts_synced=False),
        SMALL,
    ),
    Mutant(
        "follower-reports-unsynced",
        "with Fsync a follower reports its synced end",
        Switches(follower_reports_synced=False),
        SMALL,
    ),
    Mutant(
        "no-generations",
        "only the named log generation leads or stays in the ISR",
        Switches(
            rules=replace(RULES, generation_matches=lambda ref, live: ref.broker_id in live),
        ),
        SMALL,
    ),
    Mutant(
        "generation-survives-loss",
        "a log that may have lost bytes has a new generation",
        Switches(changes_generation=False),
        SMALL,
    ),
    Mutant(
        "leads-under-another-generation",
        "a broker leads only where its own generation is named",
        Switches(leads_only_as_named=False),
        replace(SMALL, stale_leases=True),
    ),
    Mutant(
        "high-watermark-not-frozen",
        "below min.insync.replicas the high watermark stands still",
        Switches(freezes_below_min_isr=False),
        replace(SMALL, min_isr=2, crashes=0),
    ),
    Mutant(
        "former-members-kept-too-long",
        "former members are eligible only while the ISR is below the minimum",
        Switches(rules=replace(RULES, keeps_former_members=lambda isr_size, min_isr: True)),
        replace(SMALL, crashes=0),
    ),
    Mutant(
        "minimum-tested-on-attempted",
        "the minimum is tested on the confirmed ISR",
        Switches(tests_min_isr_on_confirmed=False),
        replace(SMALL, brokers=3, min_isr=2, crashes=0),
    ),
    Mutant(
        "unconfirmed-isr-not-counted",
        "the high watermark waits for attempted ISRs too",
        Switches(counts_attempted=False),
        replace(SMALL, crashes=0),
    ),
    Mutant(
        "attempts-not-persisted",
        "an attempt is on disk before it is sent",
        Switches(persists_attempts=False),
        replace(SMALL, crashes=0, clean_restarts=1),
    ),
    Mutant(
        "grows-without-fetch-in-epoch",
        "a follower joins only after a fetch in this epoch",
        Switches(rules=replace(RULES, fetched_in_epoch=lambda follower, leader_epoch: True)),
        replace(SMALL, crashes=0),
    ),
    Mutant(
        "grows-before-catching-up",
        "a follower joins only with everything up to high watermark and epoch start",
        Switches(rules=replace(RULES, has_caught_up=lambda follower, high_watermark, epoch_start: True)),
        replace(SMALL, crashes=0),
    ),
    Mutant(
        "epoch-start-ignored",
        "a follower joins only with everything up to the epoch start",
        Switches(
            rules=replace(
                RULES,
                has_caught_up=lambda follower, high_watermark, epoch_start: (
                    follower.log_end >= high_watermark
                ),
            )
        ),
        replace(SMALL, crashes=0),
    ),
    Mutant(
        "grows-with-generation-of-the-lease",
        "the ISR names the generation that fetched",
        Switches(
            grows_by_fetched_generation=False,
            rules=replace(RULES, generation_is_current=lambda follower, live: True),
        ),
        SMALL,
    ),
    Mutant(
        "grows-with-an-old-generation",
        "a follower joins only with the generation in its Lease",
        Switches(rules=replace(RULES, generation_is_current=lambda follower, live: True)),
        replace(SMALL, late_fetches=True),
    ),
    Mutant(
        "counts-without-fetch-in-epoch",
        "who counts toward the high watermark fetched in this epoch",
        Switches(counts_only_fetched_in_epoch=False),
        replace(SMALL, crashes=0),
    ),
    Mutant(
        "counts-another-generation",
        "who counts toward the high watermark fetched with the generation that is named",
        Switches(counts_only_named_generation=False),
        replace(SMALL, late_fetches=True),
    ),
    Mutant(
        "crashed-leader-resumes",
        "a new incarnation needs a new epoch",
        Switches(
            rules=replace(RULES, needs_new_epoch=lambda state, leader, incarnation: leader != state.leader)
        ),
        SMALL,
    ),
    Mutant(
        "crashed-leader-resumes-from-cache",
        "only a clean stop lets a leader resume its epoch",
        Switches(resumes_only_after_clean_stop=False),
        SMALL,
    ),
    Mutant(
        "steps-back",
        "no step back in epochs",
        Switches(remembers_newest_state=False, obeys_last_epoch_of_log=False),
        replace(SMALL, late_views=True),
    ),
    Mutant(
        "forgets-newest-state",
        "a start ignores what is older than the state saved before",
        Switches(remembers_newest_state=False),
        replace(SMALL, late_views=True),
    ),
    Mutant(
        "ignores-epoch-of-log",
        "a start ignores what is older than the log",
        Switches(obeys_last_epoch_of_log=False),
        replace(SMALL, late_views=True),
    ),
    Mutant(
        "epochs-not-compared",
        "a replica fetch compares epochs and truncates",
        Switches(compares_epochs_on_fetch=False),
        replace(SMALL, crashes=0),
    ),
    Mutant(
        "store-does-not-compare",
        "the store takes a write only at the partition epoch that it was decided from",
        Switches(compares_and_swaps=False),
        replace(SMALL, crashes=0),
    ),
    Mutant(
        "isr-may-be-empty",
        "the ISR never loses its last member",
        Switches(rules=replace(RULES, may_shrink_to=lambda members: True)),
        SMALL,
    ),
)
