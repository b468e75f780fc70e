-- Runs handed to a human.
CREATE OR REPLACE VIEW ${database}.escalations${on_cluster} AS
SELECT id, run_id, at, trigger, urgency, state, acknowledged_at, resolved_at
FROM ${database}.escalations_data FINAL
