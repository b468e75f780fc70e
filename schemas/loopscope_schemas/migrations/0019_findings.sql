-- What the detectors found in runs.
CREATE TABLE IF NOT EXISTS ${database}.findings_data${local}${on_cluster}
(
    id String,
    detector LowCardinality(String),
    severity LowCardinality(String),
    run_id String,
    at DateTime64(9, 'UTC'),
    title String,
    evidence String,
    version UInt64
)
ENGINE = ${replicated}ReplacingMergeTree(version)
ORDER BY (id)
SETTINGS ${dedup_window}
