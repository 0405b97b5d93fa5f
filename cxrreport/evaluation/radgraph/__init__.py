"""RadGraph: its archives on disk, its model run in batches, entity graphs and their F1."""
