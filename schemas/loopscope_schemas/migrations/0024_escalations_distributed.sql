-- only: cluster
CREATE TABLE IF NOT EXISTS ${database}.escalations_data${on_cluster} AS ${database}.escalations_data_local
ENGINE = Distributed('${cluster}', '${database}', 'escalations_data_local', cityHash64(id))
