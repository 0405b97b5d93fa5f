"""Reports from studies: generation with a checkpoint, in shards that survive an interruption."""

INGESTED = "ingested"
"""Folder in the output of `generate` for the images of a folder of DICOM."""
