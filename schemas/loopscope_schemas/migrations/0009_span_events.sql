-- Events of spans: exceptions, routing decisions, the owner's own.
CREATE TABLE IF NOT EXISTS ${database}.span_events_data${local}${on_cluster}
(
    day Date,
    trace_id String CODEC(ZSTD(1)),
    span_id String CODEC(ZSTD(1)),
    run_id String CODEC(ZSTD(1)),
    position UInt32 CODEC(ZSTD(1)),
    at DateTime64(9, 'UTC') CODEC(Delta, ZSTD(1)),
    name LowCardinality(String),
    attributes Map(LowCardinality(String), String) CODEC(ZSTD(3)),
    INDEX run_id_bloom run_id TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = ${replicated}ReplacingMergeTree
PARTITION BY day
ORDER BY (trace_id, span_id, position)
TTL day + toIntervalDay(${retention_days})
SETTINGS ttl_only_drop_parts = 1, ${dedup_window}
