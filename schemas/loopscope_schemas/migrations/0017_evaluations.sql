-- One row a case of an evaluation suite that was run.
CREATE TABLE IF NOT EXISTS ${database}.evaluations_data${local}${on_cluster}
(
    suite LowCardinality(String),
    case_name String,
    run_id String,
    at DateTime64(9, 'UTC'),
    score Nullable(Float64),
    passed Nullable(Bool),
    baseline Nullable(Float64),
    version UInt64
)
ENGINE = ${replicated}ReplacingMergeTree(version)
ORDER BY (suite, case_name, run_id, at)
SETTINGS ${dedup_window}
