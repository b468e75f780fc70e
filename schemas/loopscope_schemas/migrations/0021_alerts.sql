-- One row a rule and label set: its state now.
CREATE TABLE IF NOT EXISTS ${database}.alerts_data${local}${on_cluster}
(
    rule LowCardinality(String),
    labels String,
    state LowCardinality(String),
    value Nullable(Float64),
    threshold Nullable(Float64),
    since DateTime64(9, 'UTC'),
    notified_at Nullable(DateTime64(9, 'UTC')),
    version UInt64
)
ENGINE = ${replicated}ReplacingMergeTree(version)
ORDER BY (rule, labels)
SETTINGS ${dedup_window}
