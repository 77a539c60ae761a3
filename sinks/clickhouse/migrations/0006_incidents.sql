-- One row per revision of an incident. contributors and factors are JSON arrays, as in the JSON lines output.

CREATE TABLE IF NOT EXISTS incidents
(
    incident_id String CODEC(ZSTD(1)),
    revision UInt32 CODEC(T64, ZSTD(1)),
    kind LowCardinality(String),
    severity LowCardinality(String),
    state LowCardinality(String),
    dims Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    team LowCardinality(String),
    product LowCardinality(String),
    environment LowCardinality(String),
    provider LowCardinality(String),
    model LowCardinality(String),
    opened_at DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    detected_at DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    resolved_at Nullable(DateTime64(3, 'UTC')) CODEC(ZSTD(1)),
    observed Nullable(Float64) CODEC(ZSTD(1)),
    expected Nullable(Float64) CODEC(ZSTD(1)),
    unit LowCardinality(String),
    score Float64 CODEC(ZSTD(1)),
    impact_usd_per_hour Nullable(Float64) CODEC(ZSTD(1)),
    cause LowCardinality(String),
    retry_helps Nullable(Bool) CODEC(ZSTD(1)),
    summary String CODEC(ZSTD(3)),
    contributors String CODEC(ZSTD(3)),
    factors String CODEC(ZSTD(3)),
    sparkline Array(Float64) CODEC(ZSTD(1)),
    related Array(String) CODEC(ZSTD(1)),
    links Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    notify Bool CODEC(ZSTD(1)),
    inserted_at DateTime('UTC') DEFAULT now() CODEC(Delta, ZSTD(1))
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(opened_at)
ORDER BY (kind, incident_id, revision)
SETTINGS non_replicated_deduplication_window = 1000, ttl_only_drop_parts = 1;
