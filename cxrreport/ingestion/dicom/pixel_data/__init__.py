"""The pixel data of a DICOM file to stored values: fragments, checks of the codestream, decoders, sample values."""

from cxrreport.ingestion.dicom.pixel_data.decoders import installed_decoders
from cxrreport.ingestion.dicom.pixel_data.decoding import PIXELS, decode
