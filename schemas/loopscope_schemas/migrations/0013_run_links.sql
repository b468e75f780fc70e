-- Spans assigned to runs that were found, not recorded.
CREATE TABLE IF NOT EXISTS ${database}.run_links_data${local}${on_cluster}
(
    day Date,
    trace_id String CODEC(ZSTD(1)),
    span_id String CODEC(ZSTD(1)),
    run_id String CODEC(ZSTD(1)),
    turn Nullable(UInt32),
    version UInt64,
    INDEX run_id_bloom run_id TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = ${replicated}ReplacingMergeTree(version)
PARTITION BY day
ORDER BY (trace_id, span_id)
TTL day + toIntervalDay(${retention_days})
SETTINGS ttl_only_drop_parts = 1, ${dedup_window}
