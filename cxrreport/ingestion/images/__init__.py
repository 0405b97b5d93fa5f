"""From stored pixel values to the square grey image that the model sees, with checks on the way."""

from cxrreport.ingestion.images.acceptance import check_body_part, check_modality, refused_by_system
from cxrreport.ingestion.images.burned_in import text_near_border
from cxrreport.ingestion.images.picture import is_picture, read_picture
from cxrreport.ingestion.images.radiograph import Radiograph
from cxrreport.ingestion.images.resample import to_square
from cxrreport.ingestion.images.views import preference, view_of

__all__ = [
    "Radiograph",
    "check_body_part",
    "check_modality",
    "is_picture",
    "preference",
    "read_picture",
    "refused_by_system",
    "text_near_border",
    "to_square",
    "view_of",
]
