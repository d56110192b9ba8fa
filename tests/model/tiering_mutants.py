"""Every rule of tiering, switched off: what the checker must then find, and how large the world must be for it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from tests.model.tiering_settings import Bounds, Looking, Switches
from tests.model.tiering_world import World

from strandline_tiered.protocol_rules import RULES, Rules


@dataclass(frozen=True, slots=True)
class Mutant:
    """One rule switched off, and a world to search.

    `strict`: searched is first how something that keeps records safe breaks, and from there on, with one more epoch, how a
    record is lost. `slow`: too slow for every test run, which follows the recorded trace. `needless`: nothing is found, and
    why not.
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
        return Path(__file__).parent / "tiering_traces"

    def world(self, *, strict: bool, recorded: bool = False, with_the_rule: bool = False) -> World:
        """Return the world to search, or the one in which the recorded trace can be followed."""
        longer = 1 if recorded and self.strict else 0
        bounds = replace(self.bounds, epochs=self.bounds.epochs + longer)
        return World(bounds, Switches() if with_the_rule else self.switches, strict=strict)


def without(**rules: object) -> Switches:
    """Return the switches with rules of the protocol replaced."""
    changed: Rules = replace(RULES, **rules)  # type: ignore[arg-type]
    return Switches(rules=changed)


SMALL = Bounds(epochs=3, log_length=2, records=2, tiered=1)
LONGER = replace(SMALL, epochs=4)
APPENDED = Bounds(epochs=3, log_length=2, records=1)

MUTANTS = (
    Mutant(
        "reads-before-claiming",
        "a leader reads only after its claim is stored",
        Switches(claims_before_reading=False),
        SMALL,
        strict=True,
    ),
    Mutant(
        "does-not-look",
        "behind a manifest, and before it deletes, a leader looks for successors",
        Switches(looking=Looking.NEVER),
        SMALL,
        strict=True,
    ),
    Mutant(
        "looks-before-writing",
        "a leader looks behind its manifest, not before it",
        Switches(looking=Looking.BEFORE_WRITING),
        SMALL,
        strict=True,
    ),
    Mutant(
        "deletes-behind-the-manifest-of-another",
        "only a manifest of the own epoch authorises deletions",
        without(is_own=lambda name, leader_epoch: name.sequence > 0),
        LONGER,
        strict=True,
        slow=True,
    ),
    Mutant(
        "one-key-for-all-manifests",
        "each manifest has a key of its own",
        Switches(has_a_key_for_each_manifest=False),
        LONGER,
        slow=True,
    ),
    Mutant(
        "reuses-a-sequence",
        "after an unknown outcome the next manifest has a higher sequence",
        without(next_sequence=lambda sequence, stored: stored + 1),
        replace(SMALL, lost_answers=1),
    ),
    Mutant(
        "followers-obey-manifests",
        "followers delete only what their leader released",
        Switches(followers_obey_their_leader=False),
        SMALL,
        strict=True,
    ),
    Mutant(
        "replicas-start-at-a-manifest",
        "a new replica starts where its leader released, not at the end of a manifest",
        Switches(replicas_start_at_tiered_through=False),
        replace(SMALL, lost_volumes=1),
        strict=True,
    ),
    Mutant(
        "scrubs-its-own-epoch",
        "a scrub collects only objects of lower epochs",
        without(is_collectable=lambda name_epoch, leader_epoch: True),
        replace(SMALL, epochs=2, scrubs=1, late_answers=True),
    ),
    Mutant(
        "deletes-what-is-still-listed",
        "objects are deleted only behind a manifest that does not name them any more",
        without(forgotten_from=lambda sequence: 0),
        replace(SMALL, raises=1),
    ),
    Mutant(
        "writes-after-resuming",
        "a leader that resumes its epoch writes no manifest and no object",
        Switches(resumes_only_to_serve=False),
        replace(SMALL, resumptions=1),
    ),
    Mutant(
        "reads-before-claiming-again",
        "a leader that resumes its epoch reads only after its claim is stored",
        Switches(claims_when_resuming=False),
        replace(SMALL, resumptions=1, raises=1),
    ),
    Mutant(
        "uploads-uncommitted",
        "only committed records are uploaded",
        without(uploadable_end=lambda high_watermark, last_stable_offset: 1 << 40),
        APPENDED,
    ),
    Mutant(
        "keeps-its-log-after-unclean-election",
        "after an unclean election, a log that differs from the manifest is dropped",
        without(must_start_again=lambda agreed_end, manifest_end: False),
        replace(APPENDED, unclean_elections=1),
        slow=True,
    ),
    Mutant(
        "appends-before-it-has-recovered",
        "after an unclean election, records are taken only behind an own, confirmed manifest",
        without(may_append=lambda recovering, confirmed: True),
        replace(APPENDED, unclean_elections=1),
        slow=True,
    ),
    Mutant(
        "forgets-its-own-epoch",
        "a leader that resumes its epoch loads what it wrote in it",
        without(is_loadable=lambda name, leader_epoch, may_write: name.leader_epoch < leader_epoch),
        replace(SMALL, resumptions=1),
    ),
    Mutant(
        "releases-not-fenced",
        "followers heed only releases of the leader of their epoch",
        Switches(releases_are_fenced=False),
        SMALL,
        needless="what was confirmed once is in every manifest that is the highest later",
    ),
)
