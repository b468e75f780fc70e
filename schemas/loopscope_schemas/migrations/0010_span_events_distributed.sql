-- only: cluster
CREATE TABLE IF NOT EXISTS ${database}.span_events_data${on_cluster} AS ${database}.span_events_data_local
ENGINE = Distributed('${cluster}', '${database}', 'span_events_data_local', cityHash64(trace_id))
