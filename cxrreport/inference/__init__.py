"""Reports from studies: greedy decoding in batches, and shards that survive a stop at any moment."""
