"""One command, one MLflow run: opened, logged to through a spool on disk, and synchronised later."""

from cxrreport.tracking.runs import PACKAGES, Run, flatten, peak_memory_mb, start, store_uri, sync, uri_of

__all__ = ["PACKAGES", "Run", "flatten", "peak_memory_mb", "start", "store_uri", "sync", "uri_of"]
