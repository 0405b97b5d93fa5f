"""A listing and its headers with pseudonyms instead of ids and names."""

from __future__ import annotations

from dataclasses import replace

from cxrreport.dataset import Pseudonyms
from cxrreport.ingestion.dicom import Header
from cxrreport.ingestion.layouts import Listing
from cxrreport.records import Exclusion


def pseudonymized_listing(listing: Listing, pseudonyms: Pseudonyms | None) -> Listing:
    """Replace ids, file names and keys of reports by pseudonyms; the paths to read from are kept.

    Everything downstream uses pseudonyms: splits, errors and the exclusion log.
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
        excluded=[
            replace(row, source=pseudonyms.path(row.source), study_id=pseudonyms.of("study", row.study_id))
            for row in listing.excluded
        ],
        by_study={
            pseudonyms.of("study", study_id): replace(row, patient_id=pseudonyms.of("patient", row.patient_id))
            for study_id, row in listing.by_study.items()
        },
    )


def pseudonymized_header(header: Header | Exclusion, pseudonyms: Pseudonyms | None) -> Header | Exclusion:
    """Replace the ids of a header by pseudonyms; an exclusion already has them."""
    if pseudonyms is None or isinstance(header, Exclusion):
        return header
    return replace(
        header,
        image_id=pseudonyms.of("image", header.image_id),
        study_id=pseudonyms.of("study", header.study_id),
        patient_id=pseudonyms.of("patient", header.patient_id),
        accession=pseudonyms.of("study", header.accession),  # a table of reports may have it as its id
    )
