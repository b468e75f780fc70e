-- One row a case of an evaluation.
CREATE OR REPLACE VIEW ${database}.evaluations${on_cluster} AS
SELECT suite, case_name AS case, run_id, at, score, passed, baseline
FROM ${database}.evaluations_data FINAL
