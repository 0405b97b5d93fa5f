"""Studies from archives, and documents to them: DICOMweb, DIMSE and FHIR, as commands and as a service."""
