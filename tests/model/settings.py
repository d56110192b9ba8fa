"""What is explored: how large the world is, and which rules hold in it.

`Bounds` make the state space finite. `Switches` are the rules of design sections 3.2 to 3.4 that live outside the
transition functions, each on by default; `Switches.rules` are those inside them. A mutant is a `Switches` with one of
them off.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from strandline_broker.cluster.transitions import RULES, Rules


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much may happen. The number of ISR changes is not bounded: partition epochs only ever count as same or older.

    - `epochs`: leader epochs are below it. `log_length`: no log grows beyond it.
    - `crashes`: unclean restarts, lost volumes and failed logs, together; `clean_restarts`: the others.
    - `writes_in_flight`: changes of the partition by its leader, sent and not yet landed.
    - `late_fetches`: one replica fetch may be under way while its sender crashes, and arrive in its next life.
    - `late_views`: a broker may learn of a leader epoch, and act in it, when the store is already in a later one.
    - `stale_leases`: controllers and leaders may decide by Leases of former starts.
    - `failed_logs`: a sync may fail, and the log is reopened at its synced end.
    - `follower_watermarks`: followers learn the high watermark, serve consumers up to it, and begin to lead with it.
    """

    brokers: int = 2
    epochs: int = 3
    log_length: int = 2
    crashes: int = 1
    clean_restarts: int = 0
    writes_in_flight: int = 1
    min_isr: int = 1
    flush_replicated: bool = False
    late_fetches: bool = True
    late_views: bool = True
    stale_leases: bool = True
    failed_logs: bool = False
    follower_watermarks: bool = False


@dataclass(frozen=True, slots=True)
class Switches:
    """The rules, each True while it holds."""

    rules: Rules = field(default=RULES)

    # What counts as the end of a log under `flush: Fsync`.
    leader_counts_synced: bool = True
    follower_reports_synced: bool = True

    # Who counts toward the high watermark, and when it may move.
    counts_only_fetched_in_epoch: bool = True
    counts_only_named_generation: bool = True
    counts_attempted: bool = True
    gives_up_only_what_was_refused: bool = True
    freezes_below_min_isr: bool = True
    tests_min_isr_on_confirmed: bool = True

    # What a start may rely on.
    persists_attempts: bool = True
    resumes_only_after_clean_stop: bool = True
    changes_generation: bool = True
    steps_down_after_failed_log: bool = True
    resumes_only_with_sound_logs: bool = True
    leads_only_as_named: bool = True

    # No step back in epochs: neither below what was seen before, nor below the end of the log.
    remembers_newest_state: bool = True
    obeys_last_epoch_of_log: bool = True

    # What everything stands on.
    elects_only_eligible: bool = True
    checks_epoch_of_fetch: bool = True
    compares_epochs_on_fetch: bool = True
    compares_and_swaps: bool = True
    grows_by_fetched_generation: bool = True
