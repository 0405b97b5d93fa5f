"""The exception tree.

    CxrReportError
    ├── SettingsError          a configuration field or file is missing, unknown or out of range
    ├── InputError             a given file, folder or table cannot be used
    │   ├── ManifestError      an ingest folder that is missing, incomplete or of another schema
    │   └── RefusedImage       one file that does not become an image, with a reason code
    │       └── PixelError     ... because its pixel data or its grey-scale transformations are not usable
    ├── OutputError            an output folder that is in use, holds something else, or a full disk
    ├── WeightsError           weights that are missing, not accessible, or not safe to load
    │   └── MismatchError      adapter, checkpoint and images that do not belong together
    ├── TrainingError          training that cannot continue (a loss that is not finite, an empty split)
    ├── InferenceError         generation that cannot continue (too little memory, output that is not finite)
    ├── ScoreError             predictions and references that cannot be scored against each other
    ├── TrackingError          MLflow that cannot be reached or refuses
    ├── PeerError              a DICOM node, DICOMweb or FHIR server that cannot be reached or refuses
    ├── MissingExtraError      an optional dependency that is not installed
    ├── ProcessError           a helper process of this package that does not start
    └── UnsupportedVersionError  an installed library whose version this package does not support

Every message names the file, field or id and how to fix it. No message contains a patient tag or report text, because
messages are written to logs and MLflow.
"""

from __future__ import annotations


class CxrReportError(Exception):
    """Base of every error that this package raises on purpose."""


class SettingsError(CxrReportError):
    """A configuration field or file is missing, unknown or out of range."""


class InputError(CxrReportError):
    """A given file, folder or table cannot be used."""


class ManifestError(InputError):
    """An ingest folder that is missing, incomplete or of another schema version."""


class RefusedImage(InputError):
    """One file that does not become an image.

    Args:
        reason: code for the exclusion log, one of `records.Reason`.
        detail: explanation without patient tags.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type[RefusedImage], tuple[str, str]]:
        # The default would rebuild it from the joined message and lose the code between processes.
        return type(self), (self.reason, self.detail)


class PixelError(RefusedImage):
    """The pixel data, or a transformation from stored values to grey, is not usable."""


class OutputError(CxrReportError):
    """An output folder that is in use or holds something else, or a disk that is full."""


class WeightsError(CxrReportError):
    """Weights that are missing, not accessible, or not safe to load."""


class MismatchError(WeightsError):
    """Adapter, checkpoint and images that do not belong together."""


class TrainingError(CxrReportError):
    """Training that cannot continue."""


class InferenceError(CxrReportError):
    """Generation that cannot continue."""


class ScoreError(CxrReportError):
    """Predictions and references that cannot be scored against each other."""


class TrackingError(CxrReportError):
    """MLflow cannot be reached, or refuses."""


class PeerError(CxrReportError):
    """A DICOM node, DICOMweb or FHIR server cannot be reached, or refuses.

    Args:
        message: names the server, never a patient or study.
        again: whether another attempt can succeed.
    """

    def __init__(self, message: str, *, again: bool = True) -> None:
        super().__init__(message)
        self.again = again


class MissingExtraError(CxrReportError):
    """An optional dependency is not installed.

    Args:
        feature: the requested feature.
        extra: the extra of this package that it needs.
    """

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(f"{feature} needs the extra '{extra}': pip install 'cxrreport[{extra}]'")


class ProcessError(CxrReportError):
    """A helper process of this package does not start."""


class UnsupportedVersionError(CxrReportError):
    """An installed library has a version that this package does not support."""
