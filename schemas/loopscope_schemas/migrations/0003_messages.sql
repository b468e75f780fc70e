-- One row for each distinct content block of (trace, day). Plain MergeTree: a text index on a ReplacingMergeTree is
-- rebuilt at every merge. Repeats are possible; readers remove them after the match.
CREATE TABLE IF NOT EXISTS ${database}.messages_data${local}${on_cluster}
(
    day Date CODEC(Delta, ZSTD(1)),
    trace_id String CODEC(ZSTD(1)),
    hash FixedString(16) CODEC(NONE),
    role LowCardinality(String),
    kind LowCardinality(String),
    source LowCardinality(String),
    tool LowCardinality(String),
    first_span_id String CODEC(ZSTD(1)),
    first_turn Nullable(UInt32) CODEC(ZSTD(1)),
    first_seen_at DateTime64(9, 'UTC') CODEC(Delta, ZSTD(1)),
    bytes UInt64 CODEC(ZSTD(1)),
    tokens_estimate UInt32 CODEC(ZSTD(1)),
    body String CODEC(ZSTD(3)),
    INDEX body_text lowerUTF8(body) TYPE text(tokenizer = splitByNonAlpha, posting_list_codec = 'bitpacking') GRANULARITY 100000000
)
ENGINE = ${replicated}MergeTree
PARTITION BY day
ORDER BY (trace_id, hash)
TTL day + toIntervalDay(${retention_days})
SETTINGS ttl_only_drop_parts = 1, index_granularity_bytes = 67108864, ${dedup_window}
