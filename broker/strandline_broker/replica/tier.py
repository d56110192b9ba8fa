"""A tiered partition's second tier, as its replicas and its leader know it.

`Log.tier` holds the two offsets that every replica needs; here is what belongs to a role. A leader knows the bucket only
through a manifest that it loaded after its claim (design section 7.3): until then `remote` is None, and whoever needs it is
told to try again, never that the log begins at 0 or that an offset is out of range. A follower knows what its leader sent.

Who uses it: `Partition`, which owns one if it is tiered; the archiver of a leader, which loads, uploads and publishes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from strandline_broker.errors import ErrorCode, KafkaError
from strandline_broker.wire.fetch import TierNews

if TYPE_CHECKING:
    from collections.abc import Callable

    from strandline_broker.log.log import Log
    from strandline_broker.log.tier import LogTier
    from strandline_broker.replica.remote import RemoteLog


class Renewal(NamedTuple):
    """Why a leader needs another epoch: see `transitions.renew_epoch`."""

    above: int
    recovering: bool


class PartitionTier:
    """See the module."""

    __slots__ = (
        "_log",
        "_moved",
        "on_wanted",
        "remote",
        "renewal",
        "segment_key",
        "wanted_log_start",
    )

    def __init__(self, log: Log, moved: Callable[[], None]) -> None:
        """Let a log have a second tier; `moved` is called when there is news for followers, or for who deletes records.

        Raises KafkaError(KAFKA_STORAGE_ERROR).
        """
        log.start_tiering()
        self._log = log
        self._moved = moved
        self.remote: RemoteLog | None = None
        """While leading: the bucket's part, once its manifest is loaded."""
        self.segment_key = ""
        """While leading: key of the segment object that ends at `tiered_through`; empty where there is none."""
        self.wanted_log_start = 0
        """While leading: where the log is to begin, once that is in the bucket."""
        self.on_wanted: Callable[[], None] | None = None
        """Called, while leading, when `wanted_log_start` rose."""
        self.renewal: Renewal | None = None
        """While leading: the other epoch that it needs to go on in the bucket; `IsrKeeper` asks the store for it."""

    @property
    def _bounds(self) -> LogTier:
        bounds = self._log.tier
        assert bounds is not None, "a log that is tiered stays so"
        return bounds

    @property
    def log_start(self) -> int:
        """First offset that can be read, in whatever tier."""
        return self._bounds.log_start

    @property
    def tiered_through(self) -> int:
        """First offset that must stay on the local disks."""
        return self._bounds.tiered_through

    def holds(self, offset: int) -> bool:
        """Whether an offset can be read in the bucket only."""
        return self._bounds.log_start <= offset < self._log.start_offset

    @property
    def is_whole_here(self) -> bool:
        """Whether everything there is can be read here, whatever the bucket holds."""
        return self._bounds.log_start >= self._log.start_offset

    # -- roles ---------------------------------------------------------------------------------------------------------

    def forget_role(self) -> None:
        """Forget what only the leader of an epoch knows: the epoch ended."""
        self.remote = None
        self.segment_key = ""
        self.wanted_log_start = 0
        self.on_wanted = None
        self.renewal = None

    def authorise(self, offset: int, segment_key: str) -> None:
        """Let everything below `offset` be deleted on local disks: this leader wrote its manifest, and looked.

        `segment_key` names the segment object that ends there, from which new replicas learn what came before.
        """
        assert self.remote is not None, "who did not load the manifest cannot have looked"
        assert offset <= self.remote.end_offset, "below the manifest's end"
        if offset >= self.tiered_through:
            self._bounds.raise_tiered_through(offset)
            self.segment_key = segment_key
            self._moved()

    def learn(self, news: TierNews) -> None:
        """Take over, as a follower, what the leader of this epoch authorised."""
        self._bounds.raise_tiered_through(news.tiered_through)

    @property
    def news(self) -> TierNews:
        """What followers are told."""
        return TierNews(self.tiered_through, self._log.start_offset, self.segment_key)

    def has_moved(self, fetch_offset: int, last_fetched_epoch: int) -> bool:
        """Whether a follower has to begin elsewhere: what it asks for is not here, or it is new and need not copy all.

        A follower without any epoch has never held a record, or was interrupted when it began.
        """
        if fetch_offset < self._log.start_offset:
            return True
        if last_fetched_epoch >= 0:
            return False
        return bool(self.segment_key) and fetch_offset <= self.tiered_through

    # -- the log start -------------------------------------------------------------------------------------------------

    def ask_log_start(self, offset: int) -> None:
        """Want the log to begin at `offset`: it does so when every later leader will know.

        A leader that was replaced without knowing would else delete what its successor goes on serving.
        """
        if offset > self.wanted_log_start:
            self.wanted_log_start = offset
            if self.on_wanted is not None:
                self.on_wanted()

    def raise_log_start(self, offset: int) -> None:
        """Let the log begin at `offset` in both tiers, durably. Raises KafkaError(KAFKA_STORAGE_ERROR)."""
        try:
            moved = self._bounds.raise_log_start(offset)
        except OSError as error:
            raise KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, f"{self._log.directory}: {error}") from error
        if moved:
            self._log.epochs.truncate_from_start(offset)

    def loaded(self) -> RemoteLog:
        """Return the bucket's part. Raises KafkaError(LEADER_NOT_AVAILABLE), retriable, while it is not known.

        After OFFSET_NOT_AVAILABLE for the log start librdkafka's `query_watermark_offsets` takes the log end for it, and
        says nothing: its request for the end, sent along, succeeded. This code it retries by itself.
        """
        if self.remote is None:
            raise KafkaError(ErrorCode.LEADER_NOT_AVAILABLE, "the manifest in the bucket is not loaded yet")
        return self.remote
