"""What is explored of tiering: how large the world is, and which rules hold in it.

`Bounds` make the state space finite. `Switches` are the rules of design section 7.3: those that live in the protocol's
functions (`rules`), and those that its surroundings keep, each on by default. A mutant is a `Switches` with one off.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from strandline_tiered.protocol_rules import RULES, Rules


class Looking(Enum):
    """When a leader lists what higher epochs wrote."""

    AFTER_WRITING = "after writing"
    BEFORE_WRITING = "before writing"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much may happen. Requests that land late, and never, are not bounded: every one may.

    - `segment_sizes`: records in a segment, by broker; its length is the number of brokers.
    - `epochs`: leader epochs are below it. `log_length`: no log grows beyond it. `records`: as many every broker has at
      first, acknowledged; `tiered`: as many of them are in the bucket already, each in a segment, and epoch 1 begins.
    - `lost_answers`: writes to the bucket whose sender gives up waiting.
    - `crashes`: brokers that forget all but their log. `lost_volumes`: those that forget their log, too.
    - `resumptions`: clean stops after which a leader resumes its epoch.
    - `raises`: times that retention, or a client, raises a log start, on a leader or on one that was deposed.
    - `scrubs`: scrubs that are begun. `unclean_elections`: elections of a replica that lacks records.
    - `late_answers`: the answer to a PUT arrives some time after it was carried out.
    - `late_collection`: deletions of manifests may land late, too; else they land at once.
    """

    segment_sizes: tuple[int, ...] = (1, 1)
    epochs: int = 3
    log_length: int = 1
    records: int = 0
    tiered: int = 0
    lost_answers: int = 0
    crashes: int = 0
    lost_volumes: int = 0
    resumptions: int = 0
    raises: int = 0
    scrubs: int = 0
    unclean_elections: int = 0
    late_answers: bool = False
    late_collection: bool = False


@dataclass(frozen=True, slots=True)
class Switches:
    """The rules, each as it should be."""

    rules: Rules = field(default=RULES)
    claims_before_reading: bool = True
    looking: Looking = Looking.AFTER_WRITING
    has_a_key_for_each_manifest: bool = True
    followers_obey_their_leader: bool = True
    replicas_start_at_tiered_through: bool = True
    resumes_only_to_serve: bool = True
    claims_when_resuming: bool = True
    releases_are_fenced: bool = True
