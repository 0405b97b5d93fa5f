"""The verbs, for the command line and for notebooks alike: open a tracked run, do the work, log it.

    from pathlib import Path
    from cxrreport import runs
    from cxrreport.settings import IngestSettings

    summary = runs.ingest(IngestSettings(input=Path("mimic-cxr"), output=Path("data")))

Importing this package is quick: each command imports what it needs when it is called.
"""

from cxrreport.runs.command import Summary, first_process, sync
from cxrreport.runs.evaluation import compare, evaluate, published, review
from cxrreport.runs.inference import export, generate
from cxrreport.runs.ingestion import ingest
from cxrreport.runs.model import merge
from cxrreport.runs.training import plan, train

__all__ = [
    "Summary",
    "compare",
    "evaluate",
    "export",
    "first_process",
    "generate",
    "ingest",
    "merge",
    "plan",
    "published",
    "review",
    "sync",
    "train",
]
