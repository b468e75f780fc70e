-- System prompts and tool-definition sets, once a day by hash: they are the prompt versions.
CREATE TABLE IF NOT EXISTS ${database}.prompts_data${local}${on_cluster}
(
    day Date,
    hash FixedString(16) CODEC(NONE),
    kind LowCardinality(String),
    agent LowCardinality(String),
    name LowCardinality(String),
    version LowCardinality(String),
    first_seen_at DateTime64(9, 'UTC'),
    bytes UInt64,
    body String CODEC(ZSTD(3)),
    shape String CODEC(ZSTD(3)),
    INDEX body_text lowerUTF8(body) TYPE text(tokenizer = splitByNonAlpha, posting_list_codec = 'bitpacking') GRANULARITY 100000000
)
ENGINE = ${replicated}MergeTree
PARTITION BY day
ORDER BY (hash, agent)
TTL day + toIntervalDay(${retention_days})
SETTINGS ttl_only_drop_parts = 1, index_granularity_bytes = 67108864, ${dedup_window}
