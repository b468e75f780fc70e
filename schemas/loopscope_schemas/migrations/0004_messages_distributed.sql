-- only: cluster
CREATE TABLE IF NOT EXISTS ${database}.messages_data${on_cluster} AS ${database}.messages_data_local
ENGINE = Distributed('${cluster}', '${database}', 'messages_data_local', cityHash64(trace_id))
