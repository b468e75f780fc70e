-- only: cluster
CREATE TABLE IF NOT EXISTS ${database}.run_state_data${on_cluster} AS ${database}.run_state_data_local
ENGINE = Distributed('${cluster}', '${database}', 'run_state_data_local', cityHash64(run_id))
