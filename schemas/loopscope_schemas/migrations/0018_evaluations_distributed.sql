-- only: cluster
CREATE TABLE IF NOT EXISTS ${database}.evaluations_data${on_cluster} AS ${database}.evaluations_data_local
ENGINE = Distributed('${cluster}', '${database}', 'evaluations_data_local', cityHash64(suite))
