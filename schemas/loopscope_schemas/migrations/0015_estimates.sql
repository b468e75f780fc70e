-- What a run of an agent and version is supposed to cost: the five numbers.
CREATE TABLE IF NOT EXISTS ${database}.estimates_data${local}${on_cluster}
(
    agent LowCardinality(String),
    agent_version LowCardinality(String),
    avg_input_tokens Float64,
    avg_output_tokens Float64,
    avg_tool_calls Float64,
    avg_tokens_per_tool_result Float64,
    runs_per_day Float64,
    per_run_usd Nullable(Decimal(38, 12)),
    at DateTime64(9, 'UTC'),
    version UInt64
)
ENGINE = ${replicated}ReplacingMergeTree(version)
ORDER BY (agent, agent_version)
SETTINGS ${dedup_window}
