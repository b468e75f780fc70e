-- only: cluster
CREATE TABLE IF NOT EXISTS ${database}.prompts_data${on_cluster} AS ${database}.prompts_data_local
ENGINE = Distributed('${cluster}', '${database}', 'prompts_data_local', cityHash64(hash))
