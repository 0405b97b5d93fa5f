"""A fine-tuned model as an MLflow model: what it answers, and how it becomes a version of a registered model."""

from cxrreport.serving.model import COLUMNS, ROOT, SIGNATURE, RefusedRequest, ReportModel, resolve_below_root
from cxrreport.serving.registration import Registered, pack, register, requirements
