-- only: cluster
ALTER TABLE ${database}.spans_data${on_cluster}
    ADD COLUMN IF NOT EXISTS service_tier LowCardinality(String),
    ADD COLUMN IF NOT EXISTS inferred Bool,
    ADD COLUMN IF NOT EXISTS duplicate_of String,
    ADD COLUMN IF NOT EXISTS duplicate_of_run String
