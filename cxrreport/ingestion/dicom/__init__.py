"""One DICOM file to one grey image. The only importer of pydicom in `ingestion`."""

from cxrreport.ingestion.dicom.radiograph import Header, Radiograph, read_covariates, read_header, read_radiograph

__all__ = ["Header", "Radiograph", "read_covariates", "read_header", "read_radiograph"]
