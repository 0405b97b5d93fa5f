"""Studies on disk to a manifest and model-ready images; `ingest` is the command."""
