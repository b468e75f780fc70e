-- Runs that nobody declared, and runs all of whose calls were recorded by another run as well.
ALTER TABLE ${database}.run_state_data${local}${on_cluster}
    ADD COLUMN IF NOT EXISTS inferred Bool,
    ADD COLUMN IF NOT EXISTS duplicate_of String CODEC(ZSTD(1))
