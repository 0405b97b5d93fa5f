"""The commands, for the command line and for notebooks: open a tracked run, do the work, log it.

    from pathlib import Path
    from cxrreport import runs
    from cxrreport.settings import IngestSettings

    summary = runs.ingest(IngestSettings(input=Path("mimic-cxr"), output=Path("data")))

Importing this package is quick: each command imports what it needs when it is called.
"""

from cxrreport.runs.command import Summary, first_process
from cxrreport.runs.evaluation import agreement, compare, evaluate, published, review
from cxrreport.runs.pacs import listen, pull, push, requeue, route
from cxrreport.runs.pipeline import export, generate, ingest, merge, plan, plan_settings, train
from cxrreport.runs.rexrank import infer as infer_rexrank
from cxrreport.runs.status import Status, status
from cxrreport.runs.traces import feedback
from cxrreport.tracking import sync
