-- One row per sample of one GPU (or MIG instance). NULL means "not reported".

CREATE TABLE IF NOT EXISTS gpu_samples
(
    at DateTime64(9, 'UTC') CODEC(Delta, ZSTD(1)),
    topic LowCardinality(String),
    `partition` Int32 CODEC(ZSTD(1)),
    `offset` Int64 CODEC(Delta, ZSTD(1)),
    position Int32 CODEC(ZSTD(1)),
    lateness LowCardinality(String),
    cluster LowCardinality(String),
    node String CODEC(ZSTD(1)),
    gpu_uuid String CODEC(ZSTD(1)),
    gpu_index LowCardinality(String),
    mig_id LowCardinality(String),
    gpu_model LowCardinality(String),
    pool LowCardinality(String),
    namespace LowCardinality(String),
    pod String CODEC(ZSTD(1)),
    team LowCardinality(String),
    model LowCardinality(String),
    util_source LowCardinality(String),
    util Nullable(Float64) CODEC(ZSTD(1)),
    memory_used_bytes Nullable(Int64) CODEC(T64, ZSTD(1)),
    memory_total_bytes Nullable(Int64) CODEC(T64, ZSTD(1)),
    power_w Nullable(Float64) CODEC(ZSTD(1)),
    power_limit_w Nullable(Float64) CODEC(ZSTD(1)),
    temperature_c Nullable(Float64) CODEC(ZSTD(1)),
    xid Nullable(Int64) CODEC(T64, ZSTD(1)),
    ecc_uncorrected Nullable(Int64) CODEC(T64, ZSTD(1)),
    throttled Nullable(Bool) CODEC(ZSTD(1)),
    requests_running Nullable(Float64) CODEC(ZSTD(1)),
    requests_waiting Nullable(Float64) CODEC(ZSTD(1)),
    kv_cache_usage Nullable(Float64) CODEC(ZSTD(1)),
    preemptions Nullable(Int64) CODEC(T64, ZSTD(1)),
    tokens_per_s Nullable(Float64) CODEC(ZSTD(1)),
    usd_per_hour Nullable(Decimal(18, 12)) CODEC(ZSTD(1)),
    inserted_at DateTime('UTC') DEFAULT now() CODEC(Delta, ZSTD(1))
)
ENGINE = ReplacingMergeTree
PARTITION BY toMonday(at)
PRIMARY KEY (cluster, node, gpu_uuid, gpu_index, mig_id, at)
ORDER BY (cluster, node, gpu_uuid, gpu_index, mig_id, at, topic, `partition`, `offset`, position)
SETTINGS non_replicated_deduplication_window = 1000, ttl_only_drop_parts = 1;
