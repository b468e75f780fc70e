-- Runs handed to a human, and what became of it.
CREATE TABLE IF NOT EXISTS ${database}.escalations_data${local}${on_cluster}
(
    id String,
    run_id String,
    at DateTime64(9, 'UTC'),
    trigger LowCardinality(String),
    urgency LowCardinality(String),
    state LowCardinality(String),
    acknowledged_at Nullable(DateTime64(9, 'UTC')),
    resolved_at Nullable(DateTime64(9, 'UTC')),
    version UInt64
)
ENGINE = ${replicated}ReplacingMergeTree(version)
ORDER BY (id)
SETTINGS ${dedup_window}
