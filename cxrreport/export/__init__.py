"""Documents for other systems, written from predictions."""

from cxrreport.export.documents import ExportSummary, export
from cxrreport.export.sources import ExportInputs, read_inputs
