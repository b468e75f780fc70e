-- Events of spans.
CREATE OR REPLACE VIEW ${database}.span_events${on_cluster} AS
SELECT nullIf(run_id, '') AS run_id, trace_id, span_id, position, at, name, attributes
FROM ${database}.span_events_data FINAL
