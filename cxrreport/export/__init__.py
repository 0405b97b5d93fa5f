"""Documents for other systems, written from predictions."""

from cxrreport.export.documents import ExportSummary, export
from cxrreport.export.sources import ExportInputs, read_inputs

__all__ = ["ExportInputs", "ExportSummary", "export", "read_inputs"]
