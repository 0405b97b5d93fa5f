"""One DICOM file to one grey image. The only importer of pydicom in `ingestion`."""

from cxrreport.ingestion.dicom.elements import text, translated
from cxrreport.ingestion.dicom.pixel_data import installed_decoders
from cxrreport.ingestion.dicom.radiograph import Header, read_covariates, read_header, read_radiograph
from cxrreport.ingestion.dicom.reference import identify, reopen

__all__ = [
    "Header",
    "identify",
    "installed_decoders",
    "read_covariates",
    "read_header",
    "read_radiograph",
    "reopen",
    "text",
    "translated",
]
