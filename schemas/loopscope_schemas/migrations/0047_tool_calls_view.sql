-- One row a tool call.
CREATE OR REPLACE VIEW ${database}.tool_calls${on_cluster} AS
SELECT
    run_id,
    trace_id,
    span_id,
    nullIf(agent, '') AS agent,
    turn,
    nullIf(tool, '') AS tool,
    nullIf(call_id, '') AS call_id,
    start_time AS started_at,
    end_time AS ended_at,
    nullIf(input_text, '') AS arguments,
    nullIf(output_text, '') AS result,
    attempt,
    status,
    nullIf(status_message, '') AS status_message,
    nullIf(error_class, '') AS error_class,
    nullIf(error_type, '') AS error_type,
    side_effects,
    if(idempotency = '', 'none', idempotency) AS idempotency,
    nullIf(key, '') AS key,
    (toUnixTimestamp64Nano(end_time) - toUnixTimestamp64Nano(start_time)) / 1e6 AS duration_ms,
    inferred,
    nullIf(dialect, '') AS dialect,
    nullIf(duplicate_of, '') AS duplicate_of
FROM ${database}.spans_data FINAL
WHERE kind = 'tool'
