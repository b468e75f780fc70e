-- Large binaries (images, documents, signatures) by hash, taken out of content blocks.
CREATE TABLE IF NOT EXISTS ${database}.blobs_data${local}${on_cluster}
(
    day Date,
    trace_id String CODEC(ZSTD(1)),
    hash FixedString(16) CODEC(NONE),
    encoding LowCardinality(String),
    bytes UInt64 CODEC(ZSTD(1)),
    data String CODEC(ZSTD(1))
)
ENGINE = ${replicated}MergeTree
PARTITION BY day
ORDER BY (trace_id, hash)
TTL day + toIntervalDay(${retention_days})
SETTINGS ttl_only_drop_parts = 1, index_granularity_bytes = 67108864, ${dedup_window}
