"""A fine-tuned model as an MLflow model: what it answers, and how it becomes a version of a registered model."""

from cxrreport.serving.model import SIGNATURE, RefusedRequest, ReportModel
from cxrreport.serving.registration import Registered, pack, register, requirements
from cxrreport.serving.rows import COLUMNS, ROOT, resolve_below_root
