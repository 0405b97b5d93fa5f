"""Chest X-ray report generation, from DICOM to RadGraph F1.

    from cxrreport import runs

`runs` holds the verbs (ingest, train, generate, evaluate, review). Importing this package loads neither torch,
transformers, monai nor mlflow: see `docs/architecture.md` for the floors.
"""

from cxrreport import telemetry

__version__ = "0.1.0"

telemetry.turn_off()
