-- What the detectors found in runs.
CREATE OR REPLACE VIEW ${database}.findings${on_cluster} AS
SELECT id, detector, severity, run_id, at, title, evidence
FROM ${database}.findings_data FINAL
