-- only: cluster
CREATE TABLE IF NOT EXISTS ${database}.blobs_data${on_cluster} AS ${database}.blobs_data_local
ENGINE = Distributed('${cluster}', '${database}', 'blobs_data_local', cityHash64(trace_id))
