-- Content blocks: a plain projection, so that the text index serves a search. Repeats are possible.
CREATE OR REPLACE VIEW ${database}.messages${on_cluster} AS
SELECT
    trace_id,
    day,
    lower(hex(hash)) AS hash,
    role,
    kind,
    source,
    nullIf(tool, '') AS tool,
    first_span_id,
    first_turn,
    first_seen_at,
    bytes,
    tokens_estimate,
    body
FROM ${database}.messages_data
