-- Prompt versions: each distinct system prompt and set of tool definitions.
CREATE OR REPLACE VIEW ${database}.prompts${on_cluster} AS
SELECT
    lower(hex(p.hash)) AS hash,
    any(p.kind) AS kind,
    nullIf(any(p.name), '') AS name,
    nullIf(any(p.version), '') AS version,
    min(p.first_seen_at) AS first_seen_at,
    max(p.first_seen_at) AS last_seen_at,
    groupUniqArrayIf(p.agent, p.agent != '') AS agents,
    any(p.body) AS body,
    any(p.shape) AS shape
FROM ${database}.prompts_data AS p
GROUP BY p.hash
