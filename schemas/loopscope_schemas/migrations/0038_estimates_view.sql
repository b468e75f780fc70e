-- What runs are supposed to cost.
CREATE OR REPLACE VIEW ${database}.estimates${on_cluster} AS
SELECT agent, agent_version, avg_input_tokens, avg_output_tokens, avg_tool_calls, avg_tokens_per_tool_result, runs_per_day, per_run_usd, at
FROM ${database}.estimates_data FINAL
