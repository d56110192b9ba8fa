"""Every rule, switched off: what the checker must then find, and how large the world must be for it.

Bounds are the smallest that show the need of the rule; a larger world finds the same trace more slowly.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from tests.model.settings import Bounds, Switches
from tests.model.world import World

from strandline_broker.cluster.transitions import RULES, Rules


@dataclass(frozen=True, slots=True)
class Mutant:
    """One rule switched off, and a world to search.

    `strict`: the world is too large to search as deep as the loss lies. Searched is a replica in the ISR or ELR without an
    acknowledged record; and from there on, with one more epoch, how the record is lost.
    `slow`: too slow for every test run, which follows the recorded trace.
    `needless`: nothing is found, and why not; the rule then serves something else.
    """

    name: str
    rule: str
    switches: Switches
    bounds: Bounds
    strict: bool = False
    slow: bool = False
    needless: str = ""

    @property
    def folder(self) -> Path:
        """Where the traces are."""
        return Path(__file__).parent / "traces"

    def world(self, *, strict: bool, recorded: bool = False, with_the_rule: bool = False) -> World:
        """Return the world to search, or the one in which the recorded trace can be followed."""
        longer = 1 if recorded and self.strict else 0
        bounds = replace(self.bounds, epochs=self.bounds.epochs + longer)
        return World(bounds, Switches() if with_the_rule else self.switches, strict=strict)


def without(**rules: object) -> Rules:
    """Return the rules of the transitions with some replaced."""
    return replace(RULES, **rules)  # type: ignore[arg-type]


SMALL = Bounds(log_length=1, crashes=1, late_fetches=False, late_views=False, stale_leases=False)
SHORT = replace(SMALL, epochs=2)
CALM = replace(SMALL, crashes=0)
THREE = replace(CALM, brokers=3)

# What counts as the end of a log, and which logs count.
_LOGS = (
    Mutant(
        "leader-counts-unsynced",
        "with Fsync, a leader counts its own synced end",
        Switches(leader_counts_synced=False),
        SHORT,
    ),
    Mutant(
        "follower-reports-unsynced",
        "with Fsync, a follower reports its synced end",
        Switches(follower_reports_synced=False),
        SHORT,
    ),
    Mutant(
        "generation-survives-lost-volume",
        "a lost volume is a new log generation",
        Switches(changes_generation=False),
        SHORT,
    ),
    Mutant(
        "generation-survives-machine-crash",
        "with Replicated, a crash of the machine is a new log generation",
        Switches(changes_generation=False),
        replace(SHORT, flush_replicated=True, min_isr=2),
    ),
    Mutant(
        "elects-another-generation",
        "who is elected has the log generation that ISR or ELR name",
        Switches(rules=without(generation_matches=lambda ref, live: ref.broker_id in live)),
        SHORT,
    ),
    Mutant(
        "leads-with-another-generation",
        "a broker leads only as the generation that the ISR names, from its cache too",
        Switches(leads_only_as_named=False),
        SHORT,
    ),
    Mutant(
        "elects-anyone",
        "only members of ISR or ELR are elected",
        Switches(elects_only_eligible=False),
        CALM,
    ),
    Mutant(
        "leads-on-after-failed-log",
        "a leader whose log failed, and was cut, leads no more in that epoch",
        Switches(steps_down_after_failed_log=False),
        replace(SHORT, failed_logs=True),
    ),
    Mutant(
        "resumes-after-failed-log",
        "a stop before it stepped down resumes no epoch",
        Switches(resumes_only_with_sound_logs=False),
        replace(SHORT, failed_logs=True, clean_restarts=1),
    ),
    Mutant(
        "epochs-not-compared",
        "a replica fetch compares epochs, and truncates where logs differ",
        Switches(compares_epochs_on_fetch=False),
        CALM,
    ),
)

# When the high watermark may move, and past whom.
_HIGH_WATERMARK = (
    Mutant(
        "high-watermark-not-frozen",
        "below min.insync.replicas the high watermark stands still",
        Switches(freezes_below_min_isr=False),
        replace(CALM, min_isr=2),
    ),
    Mutant(
        "former-members-kept",
        "former members are eligible only while the ISR is below the minimum",
        Switches(rules=without(keeps_former_members=lambda isr_size, min_isr: True)),
        CALM,
    ),
    Mutant(
        "minimum-tested-on-attempted",
        "the minimum is tested on the confirmed ISR",
        Switches(tests_min_isr_on_confirmed=False),
        replace(THREE, min_isr=2, epochs=2),
    ),
    Mutant(
        "attempted-not-counted",
        "the high watermark waits for attempted ISRs too",
        Switches(counts_attempted=False),
        CALM,
    ),
    Mutant(
        "attempted-given-up",
        "an attempt is given up only when the store refused it, every time that it was sent",
        Switches(gives_up_only_what_was_refused=False),
        CALM,
    ),
    Mutant(
        "attempted-not-persisted",
        "an attempt is on disk before it is sent",
        Switches(persists_attempts=False),
        replace(CALM, clean_restarts=1),
    ),
    Mutant(
        "counts-without-fetch-in-epoch",
        "who counts toward the high watermark fetched in this epoch",
        Switches(counts_only_fetched_in_epoch=False),
        replace(THREE, late_views=True),
        strict=True,
        slow=True,
    ),
    Mutant(
        "counts-another-generation",
        "who counts toward the high watermark fetched with the generation that the ISR names",
        Switches(counts_only_named_generation=False),
        replace(SHORT, late_fetches=True),
    ),
)

# Who may join the ISR.
_GROWTH = (
    Mutant(
        "joins-without-fetch-in-epoch",
        "a follower joins only after a fetch in this epoch",
        Switches(rules=without(fetched_in_epoch=lambda follower, leader_epoch: True)),
        replace(THREE, late_views=True),
        strict=True,
        slow=True,
    ),
    Mutant(
        "joins-as-another-generation",
        "the ISR names the generation that fetched",
        Switches(
            rules=without(generation_is_current=lambda follower, live: True),
            grows_by_fetched_generation=False,
        ),
        SHORT,
    ),
    Mutant(
        "joins-with-former-generation",
        "a follower joins only with the generation in its current Lease",
        Switches(rules=without(generation_is_current=lambda follower, live: True)),
        replace(SMALL, late_fetches=True),
        needless=(
            "the ISR names the generation that fetched, and a generation that is gone is never elected; the rule keeps "
            "members that are gone from counting toward the minimum"
        ),
    ),
    Mutant(
        "joins-below-high-watermark",
        "a follower joins only with everything up to the high watermark",
        Switches(
            rules=without(
                has_caught_up=lambda follower, high_watermark, epoch_start: follower.log_end >= epoch_start
            )
        ),
        CALM,
    ),
    Mutant(
        "joins-below-epoch-start",
        "a follower joins only with everything up to the start of the leader's epoch",
        Switches(
            rules=without(
                has_caught_up=lambda follower, high_watermark, epoch_start: follower.log_end >= high_watermark
            )
        ),
        SMALL,
    ),
    Mutant(
        "isr-may-be-empty",
        "the ISR never loses its last member",
        Switches(rules=without(may_shrink_to=lambda members: True)),
        SMALL,
        needless="an empty ISR elects nobody; the rule keeps the name of the one to wait for",
    ),
)

# Which epoch a broker may act in, and which writes the store takes.
_EPOCHS = (
    Mutant(
        "no-new-epoch-after-crash",
        "a new incarnation of the leader needs a new epoch",
        Switches(rules=without(needs_new_epoch=lambda state, leader, incarnation: leader != state.leader)),
        SHORT,
    ),
    Mutant(
        "resumes-after-crash",
        "only a clean stop lets a leader resume its epoch from cached state",
        Switches(resumes_only_after_clean_stop=False),
        SHORT,
    ),
    Mutant(
        "steps-back",
        "no step back in epochs: a start acts by no state older than one that it acted by before",
        Switches(remembers_newest_state=False),
        replace(SMALL, late_views=True),
    ),
    Mutant(
        "hears-fetches-of-other-epochs",
        "a replica fetch counts only in the epoch that it names",
        Switches(checks_epoch_of_fetch=False),
        replace(THREE, late_views=True),
        strict=True,
        slow=True,
    ),
    Mutant(
        "ignores-epoch-of-log",
        "a start ignores what is older than the last epoch of its log",
        Switches(obeys_last_epoch_of_log=False),
        replace(SMALL, late_views=True),
        needless=(
            "a state is on disk before it is used, so no start knows an older one, and a leader that is asked about an "
            "epoch above its own answers with an error"
        ),
    ),
    Mutant(
        "store-does-not-compare",
        "the store takes a write only at the partition epoch that it was decided from",
        Switches(compares_and_swaps=False),
        CALM,
    ),
)

MUTANTS = (*_LOGS, *_HIGH_WATERMARK, *_GROWTH, *_EPOCHS)
