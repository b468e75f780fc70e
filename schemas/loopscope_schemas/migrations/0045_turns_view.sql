-- One row a turn: an LLM call of a run and the tool calls that follow it. A turn that was not recorded is counted.
CREATE OR REPLACE VIEW ${database}.turns${on_cluster} AS
SELECT
    run_id,
    turn,
    start_time AS started_at,
    duration_ms,
    new_messages,
    input_tokens AS context_tokens,
    context_window,
    input_tokens / context_window AS share,
    tool_calls,
    errors,
    cost_usd
FROM
(
    SELECT
        *,
        toUInt32(countIf(kind = 'tool') OVER (PARTITION BY run_id, turn)) AS tool_calls,
        toUInt32(countIf(status = 'error') OVER (PARTITION BY run_id, turn)) AS errors,
        toUInt32(greatest(0, toInt64(messages) - toInt64(lagInFrame(messages, 1, 0) OVER (
            PARTITION BY run_id, kind ORDER BY start_time, span_id
            ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING)))) AS new_messages
    FROM
    (
        SELECT
            run_id,
            span_id,
            kind,
            status,
            start_time,
            (toUnixTimestamp64Nano(end_time) - toUnixTimestamp64Nano(start_time)) / 1e6 AS duration_ms,
            messages,
            input_tokens,
            context_window,
            cost_usd,
            toUInt32(coalesce(turn, countIf(kind = 'llm') OVER (
                PARTITION BY run_id ORDER BY start_time, span_id
                ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW))) AS turn
        FROM ${database}.spans_data FINAL
        WHERE kind IN ('llm', 'tool') AND run_id != '' AND duplicate_of = ''
    )
)
WHERE kind = 'llm'
