"""A listing and its headers with pseudonyms in the place of ids and names."""

from __future__ import annotations

from dataclasses import replace

from cxrreport.dataset import Pseudonyms
from cxrreport.ingestion.dicom.radiograph import Header
from cxrreport.ingestion.layouts.listing import Listing
from cxrreport.records import LeftOut


def hidden_listing(listing: Listing, pseudonyms: Pseudonyms | None) -> Listing:
    """A listing whose ids, names of files and keys of reports are pseudonyms; the paths to read from stay.

    Everything after this knows pseudonyms only: splits are drawn by them, and errors and ledger name them.
    """
    if pseudonyms is None:
        return listing
    return replace(
        listing,
        sources=[
            replace(
                source,
                source=pseudonyms.path(source.source),
                image_id=pseudonyms.of("image", source.image_id),
                study_id=pseudonyms.of("study", source.study_id),
                patient_id=pseudonyms.of("patient", source.patient_id),
            )
            for source in listing.sources
        ],
        left_out=[
            replace(row, source=pseudonyms.path(row.source), study_id=pseudonyms.of("study", row.study_id))
            for row in listing.left_out
        ],
        by_study={pseudonyms.of("study", study_id): row for study_id, row in listing.by_study.items()},
    )


def hidden_header(header: Header | LeftOut, pseudonyms: Pseudonyms | None) -> Header | LeftOut:
    """A header whose ids are pseudonyms; a row of the ledger comes from a hidden source already."""
    if pseudonyms is None or isinstance(header, LeftOut):
        return header
    return replace(
        header,
        image_id=pseudonyms.of("image", header.image_id),
        study_id=pseudonyms.of("study", header.study_id),
        patient_id=pseudonyms.of("patient", header.patient_id),
    )
