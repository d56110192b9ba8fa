"""The table of Kafka 4.2's topic configurations. Read through `topic_config`, never directly.

Source: Apache Kafka 4.2, `LogConfig` and `ServerTopicConfigSynonyms`; KIP-405 for the tiered ones. The
descriptions are our own.
"""

from __future__ import annotations

from strandline_broker.cluster.topic_config_values import LONG_MAX, ConfigType, TopicConfig

_HOUR_MS = 3_600_000
_DAY_MS = 24 * _HOUR_MS
_MIB = 1 << 20

TABLE = (
    TopicConfig(
        "cleanup.policy",
        ConfigType.LIST,
        "delete",
        "What happens to old data: `delete` drops whole segments by age or size, `compact` keeps the "
        "latest record of every key, both together do both, and an empty list keeps everything.",
        broker_synonyms=("log.cleanup.policy",),
        choices=("compact", "delete"),
    ),
    TopicConfig(
        "compression.gzip.level",
        ConfigType.INT,
        "-1",
        "Level used when compression.type is gzip; -1 is the library's default.",
        broker_synonyms=("compression.gzip.level",),
        minimum=1,
        maximum=9,
        also_valid=-1,
    ),
    TopicConfig(
        "compression.lz4.level",
        ConfigType.INT,
        "9",
        "Level used when compression.type is lz4.",
        broker_synonyms=("compression.lz4.level",),
        minimum=1,
        maximum=17,
    ),
    TopicConfig(
        "compression.type",
        ConfigType.STRING,
        "producer",
        "Codec of stored batches. `producer` keeps what the producer sent, which is also the fastest; "
        "any other value makes the leader recompress batches that arrive in another codec.",
        broker_synonyms=("compression.type",),
        choices=("uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"),
    ),
    TopicConfig(
        "compression.zstd.level",
        ConfigType.INT,
        "3",
        "Level used when compression.type is zstd.",
        broker_synonyms=("compression.zstd.level",),
        minimum=-131072,
        maximum=22,
    ),
    TopicConfig(
        "delete.retention.ms",
        ConfigType.LONG,
        str(_DAY_MS),
        "How long tombstones (and transaction markers) stay in a compacted log, so that a reader that "
        "began at its start still sees them.",
        broker_synonyms=("log.cleaner.delete.retention.ms",),
        minimum=0,
    ),
    TopicConfig(
        "file.delete.delay.ms",
        ConfigType.LONG,
        "60000",
        "Time between removing a segment from the log and deleting its files.",
        broker_synonyms=("log.segment.delete.delay.ms",),
        minimum=0,
    ),
    TopicConfig(
        "flush.messages",
        ConfigType.LONG,
        str(LONG_MAX),
        "Accepted, without effect: the broker's `flush` mode decides when data reaches the disk, and "
        "`Fsync` syncs before every acknowledgement.",
        broker_synonyms=("log.flush.interval.messages",),
        minimum=1,
        supported=False,
    ),
    TopicConfig(
        "flush.ms",
        ConfigType.LONG,
        str(LONG_MAX),
        "Accepted, without effect: the broker's `flush` mode decides when data reaches the disk, and "
        "`Fsync` syncs before every acknowledgement.",
        broker_synonyms=("log.flush.interval.ms", "log.flush.scheduler.interval.ms"),
        minimum=0,
        supported=False,
    ),
    TopicConfig(
        "follower.replication.throttled.replicas",
        ConfigType.LIST,
        "",
        "Replicas whose copying is limited on the follower's side, as partition:broker pairs or `*`. How "
        "fast is follower.replication.throttled.rate of the broker.",
    ),
    TopicConfig(
        "index.interval.bytes",
        ConfigType.INT,
        "4096",
        "Bytes of log between two entries of the offset index.",
        broker_synonyms=("log.index.interval.bytes",),
        minimum=0,
    ),
    TopicConfig(
        "internal.segment.bytes",
        ConfigType.INT,
        str(1 << 30),
        "For tests: overrides segment.bytes below its minimum.",
        minimum=1,
        internal=True,
    ),
    TopicConfig(
        "leader.replication.throttled.replicas",
        ConfigType.LIST,
        "",
        "Replicas whose copying is limited on the leader's side, as partition:broker pairs or `*`. How "
        "fast is leader.replication.throttled.rate of the broker.",
    ),
    TopicConfig(
        "local.retention.bytes",
        ConfigType.LONG,
        "-2",
        "Bytes per partition that stay on local disks once they are in the bucket; -2 means the value "
        "of retention.bytes.",
        broker_synonyms=("log.local.retention.bytes",),
        minimum=-2,
    ),
    TopicConfig(
        "local.retention.ms",
        ConfigType.LONG,
        "-2",
        "Milliseconds that segments stay on local disks once they are in the bucket; -2 means the "
        "value of retention.ms.",
        broker_synonyms=("log.local.retention.ms",),
        minimum=-2,
    ),
    TopicConfig(
        "max.compaction.lag.ms",
        ConfigType.LONG,
        str(LONG_MAX),
        "Longest time that a record of a compacted topic may wait for compaction.",
        broker_synonyms=("log.cleaner.max.compaction.lag.ms",),
        minimum=1,
    ),
    TopicConfig(
        "max.message.bytes",
        ConfigType.INT,
        str(_MIB + 12),
        "Largest record batch that a producer may send, after compression.",
        broker_synonyms=("message.max.bytes",),
        minimum=0,
    ),
    TopicConfig(
        "message.timestamp.after.max.ms",
        ConfigType.LONG,
        str(_HOUR_MS),
        "How far a CreateTime timestamp may lie ahead of the broker's clock.",
        broker_synonyms=("log.message.timestamp.after.max.ms",),
        minimum=0,
    ),
    TopicConfig(
        "message.timestamp.before.max.ms",
        ConfigType.LONG,
        str(LONG_MAX),
        "How far a CreateTime timestamp may lie behind the broker's clock.",
        broker_synonyms=("log.message.timestamp.before.max.ms",),
        minimum=0,
    ),
    TopicConfig(
        "message.timestamp.type",
        ConfigType.STRING,
        "CreateTime",
        "Whether records keep the producer's timestamp or get the leader's time of appending.",
        broker_synonyms=("log.message.timestamp.type",),
        choices=("CreateTime", "LogAppendTime"),
    ),
    TopicConfig(
        "min.cleanable.dirty.ratio",
        ConfigType.DOUBLE,
        "0.5",
        "Share of not yet compacted bytes from which on a log is compacted.",
        broker_synonyms=("log.cleaner.min.cleanable.ratio",),
        minimum=0,
        maximum=1,
    ),
    TopicConfig(
        "min.compaction.lag.ms",
        ConfigType.LONG,
        "0",
        "Time for which a record of a compacted topic is safe from compaction.",
        broker_synonyms=("log.cleaner.min.compaction.lag.ms",),
        minimum=0,
    ),
    TopicConfig(
        "min.insync.replicas",
        ConfigType.INT,
        "1",
        "In-sync replicas that must hold a record before acks=all is answered and consumers see it.",
        broker_synonyms=("min.insync.replicas",),
        minimum=1,
    ),
    TopicConfig(
        "preallocate",
        ConfigType.BOOLEAN,
        "false",
        "Accepted, without effect: segment files grow as data arrives.",
        broker_synonyms=("log.preallocate",),
        supported=False,
    ),
    TopicConfig(
        "remote.log.copy.disable",
        ConfigType.BOOLEAN,
        "false",
        "Stops uploading of a tiered topic; what is in the bucket stays readable.",
    ),
    TopicConfig(
        "remote.log.delete.on.disable",
        ConfigType.BOOLEAN,
        "false",
        "Whether switching tiering off for a topic also deletes its data from the bucket.",
    ),
    TopicConfig(
        "remote.storage.enable",
        ConfigType.BOOLEAN,
        "false",
        "Whether sealed segments move to the bucket. Unset means on where the Cluster has a bucket "
        "and the topic is not compacted.",
    ),
    TopicConfig(
        "retention.bytes",
        ConfigType.LONG,
        "-1",
        "Bytes per partition above which the oldest segments are deleted; negative means no limit.",
        broker_synonyms=("log.retention.bytes",),
    ),
    TopicConfig(
        "retention.ms",
        ConfigType.LONG,
        str(7 * _DAY_MS),
        "Age at which a segment's records are deleted; -1 means never.",
        broker_synonyms=("log.retention.ms", "log.retention.minutes", "log.retention.hours"),
        minimum=-1,
    ),
    TopicConfig(
        "segment.bytes",
        ConfigType.INT,
        str(1 << 30),
        "Size at which a segment is sealed. Retention, compaction and upload work on sealed segments.",
        broker_synonyms=("log.segment.bytes",),
        minimum=_MIB,
    ),
    TopicConfig(
        "segment.index.bytes",
        ConfigType.INT,
        str(10 * _MIB),
        "Largest size of a segment's offset index; a full index seals the segment.",
        broker_synonyms=("log.index.size.max.bytes",),
        minimum=4,
    ),
    TopicConfig(
        "segment.jitter.ms",
        ConfigType.LONG,
        "0",
        "Random time taken off segment.ms, so that partitions do not all roll at once.",
        broker_synonyms=("log.roll.jitter.ms", "log.roll.jitter.hours"),
        minimum=0,
    ),
    TopicConfig(
        "segment.ms",
        ConfigType.LONG,
        str(7 * _DAY_MS),
        "Age at which a segment is sealed even when it is not full.",
        broker_synonyms=("log.roll.ms", "log.roll.hours"),
        minimum=1,
    ),
    TopicConfig(
        "unclean.leader.election.enable",
        ConfigType.BOOLEAN,
        "false",
        "Whether a replica that may lack acknowledged records can lead when no other is left. It "
        "loses those records; an Event names every such election.",
        broker_synonyms=("unclean.leader.election.enable",),
    ),
)
