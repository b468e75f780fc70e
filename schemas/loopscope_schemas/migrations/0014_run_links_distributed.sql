-- only: cluster
CREATE TABLE IF NOT EXISTS ${database}.run_links_data${on_cluster} AS ${database}.run_links_data_local
ENGINE = Distributed('${cluster}', '${database}', 'run_links_data_local', cityHash64(trace_id))
