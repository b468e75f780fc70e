-- only: cluster
CREATE TABLE IF NOT EXISTS ${database}.estimates_data${on_cluster} AS ${database}.estimates_data_local
ENGINE = Distributed('${cluster}', '${database}', 'estimates_data_local', cityHash64(agent))
