-- One row per unusable message. Not partitioned: there are few, and the time of an unusable message is not part of its identity.

CREATE TABLE IF NOT EXISTS dead_letters
(
    reason LowCardinality(String),
    detail String CODEC(ZSTD(1)),
    topic LowCardinality(String),
    `partition` Int32 CODEC(ZSTD(1)),
    `offset` Int64 CODEC(Delta, ZSTD(1)),
    position Int32 CODEC(ZSTD(1)),
    at DateTime64(9, 'UTC') CODEC(Delta, ZSTD(1)),
    payload String CODEC(ZSTD(3)),
    inserted_at DateTime('UTC') DEFAULT now() CODEC(Delta, ZSTD(1))
)
ENGINE = ReplacingMergeTree
ORDER BY (topic, `partition`, `offset`, position)
SETTINGS non_replicated_deduplication_window = 1000;
