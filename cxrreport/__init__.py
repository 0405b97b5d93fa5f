"""Chest X-ray report generation, from DICOM to RadGraph F1.

    from cxrreport import runs

`runs` has the commands (ingest, train, generate, evaluate, review and others). Importing this package loads none of
torch, transformers, monai and mlflow.
"""

from cxrreport import telemetry, threads

__version__ = "0.1.0"

telemetry.turn_off()
threads.wait_asleep()
threads.keep_few_primitives()
