-- The state of each alert.
CREATE OR REPLACE VIEW ${database}.alerts${on_cluster} AS
SELECT rule, labels, state, value, threshold, since, notified_at
FROM ${database}.alerts_data FINAL
