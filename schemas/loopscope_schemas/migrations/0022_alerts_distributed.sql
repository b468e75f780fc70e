-- only: cluster
CREATE TABLE IF NOT EXISTS ${database}.alerts_data${on_cluster} AS ${database}.alerts_data_local
ENGINE = Distributed('${cluster}', '${database}', 'alerts_data_local', cityHash64(rule))
