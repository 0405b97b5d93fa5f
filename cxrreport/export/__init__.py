"""Generated reports as documents for other systems: DICOM Structured Report and FHIR."""
