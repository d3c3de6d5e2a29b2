"""Files that survive a kill: atomic writes, checksums, trajectory shards, checkpoints, embeddings."""
