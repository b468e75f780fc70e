-- only: cluster
CREATE TABLE IF NOT EXISTS ${database}.findings_data${on_cluster} AS ${database}.findings_data_local
ENGINE = Distributed('${cluster}', '${database}', 'findings_data_local', cityHash64(id))
