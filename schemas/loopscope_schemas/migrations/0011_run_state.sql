-- One row a run, recomputed from its spans whenever a batch touches it, never incremented.
-- The start is part of the key, so that the newest runs are found at once; when an earlier span arrives late, the row
-- under the old start is marked deleted.
CREATE TABLE IF NOT EXISTS ${database}.run_state_data${local}${on_cluster}
(
    day Date,
    run_id String CODEC(ZSTD(1)),
    version UInt64,
    trace_id String CODEC(ZSTD(1)),
    parent_run_id String CODEC(ZSTD(1)),
    agent LowCardinality(String),
    agent_version LowCardinality(String),
    prompt_version LowCardinality(String),
    environment LowCardinality(String),
    user_id String CODEC(ZSTD(1)),
    conversation_id String CODEC(ZSTD(1)),
    task_id String CODEC(ZSTD(1)),
    process_id String CODEC(ZSTD(1)),
    started_at DateTime64(9, 'UTC') CODEC(Delta, ZSTD(1)),
    ended_at Nullable(DateTime64(9, 'UTC')) CODEC(ZSTD(1)),
    last_event_at DateTime64(9, 'UTC') CODEC(Delta, ZSTD(1)),
    last_seen_at DateTime64(9, 'UTC') CODEC(Delta, ZSTD(1)),
    outcome LowCardinality(String),
    error_class LowCardinality(String),
    error_type LowCardinality(String),
    input String CODEC(ZSTD(3)),
    final_answer String CODEC(ZSTD(3)),
    turns UInt32,
    llm_calls UInt32,
    tool_calls UInt32,
    errors UInt32,
    spans UInt32,
    input_tokens Nullable(UInt64),
    cache_read_tokens Nullable(UInt64),
    cache_write_tokens Nullable(UInt64),
    output_tokens Nullable(UInt64),
    thinking_tokens Nullable(UInt64),
    cost_usd Nullable(Decimal(38, 12)),
    cost_unknown_calls UInt32,
    models Array(LowCardinality(String)),
    max_context_tokens Nullable(UInt64),
    context_window Nullable(UInt64),
    estimate_usd Nullable(Decimal(38, 12)),
    limits String CODEC(ZSTD(1)),
    limit_hit LowCardinality(String),
    config String CODEC(ZSTD(1)),
    is_deleted UInt8,
    INDEX run_id_bloom run_id TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX trace_id_bloom trace_id TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = ${replicated}ReplacingMergeTree(version, is_deleted)
PARTITION BY day
ORDER BY (toStartOfHour(started_at), run_id)
TTL day + toIntervalDay(${retention_days})
SETTINGS ttl_only_drop_parts = 1, ${dedup_window}
