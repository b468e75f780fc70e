-- What tells a span that was read from the history from one that was recorded, and one of two recordings of a call from
-- the one that counts. A span is asked for by its response id, among those of other dialects, when its call may have
-- been recorded twice: the indexes make that free where there is one dialect only.
ALTER TABLE ${database}.spans_data${local}${on_cluster}
    ADD COLUMN IF NOT EXISTS service_tier LowCardinality(String),
    ADD COLUMN IF NOT EXISTS inferred Bool CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS duplicate_of String CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS duplicate_of_run String CODEC(ZSTD(1)),
    ADD INDEX IF NOT EXISTS response_id_bloom response_id TYPE bloom_filter(0.01) GRANULARITY 1,
    ADD INDEX IF NOT EXISTS dialect_set dialect TYPE set(8) GRANULARITY 1
