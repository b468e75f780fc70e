-- only: cluster
CREATE TABLE IF NOT EXISTS ${database}.spans_data${on_cluster} AS ${database}.spans_data_local
ENGINE = Distributed('${cluster}', '${database}', 'spans_data_local', cityHash64(trace_id))
