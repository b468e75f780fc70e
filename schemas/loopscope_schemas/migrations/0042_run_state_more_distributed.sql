-- only: cluster
ALTER TABLE ${database}.run_state_data${on_cluster}
    ADD COLUMN IF NOT EXISTS inferred Bool,
    ADD COLUMN IF NOT EXISTS duplicate_of String
