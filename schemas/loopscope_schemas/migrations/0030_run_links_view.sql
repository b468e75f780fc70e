-- Which run a span belongs to, recorded or found.
CREATE OR REPLACE VIEW ${database}.run_links${on_cluster} AS
SELECT run_id, trace_id, span_id FROM ${database}.spans_data FINAL WHERE run_id != ''
UNION ALL
SELECT run_id, trace_id, span_id FROM ${database}.run_links_data FINAL
