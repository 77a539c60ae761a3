-- One row per judgement that was strange enough to keep.

CREATE TABLE IF NOT EXISTS scores
(
    window_start DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    window_end DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    stream LowCardinality(String),
    kind LowCardinality(String),
    detector LowCardinality(String),
    cadence LowCardinality(String),
    series String CODEC(ZSTD(1)),
    dims Map(LowCardinality(String), LowCardinality(String)) CODEC(ZSTD(1)),
    score Float64 CODEC(ZSTD(1)),
    observed Nullable(Float64) CODEC(ZSTD(1)),
    expected Nullable(Float64) CODEC(ZSTD(1)),
    unit LowCardinality(String),
    impact_usd_per_hour Nullable(Float64) CODEC(ZSTD(1)),
    effect Nullable(Float64) CODEC(ZSTD(1)),
    effect_unit LowCardinality(String),
    volume Nullable(Float64) CODEC(ZSTD(1)),
    detail String CODEC(ZSTD(1)),
    inserted_at DateTime('UTC') DEFAULT now() CODEC(Delta, ZSTD(1))
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(window_start)
ORDER BY (kind, detector, window_start, window_end, series)
SETTINGS non_replicated_deduplication_window = 1000, ttl_only_drop_parts = 1;
