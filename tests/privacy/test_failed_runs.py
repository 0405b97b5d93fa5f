"""What MLflow gets of a failed run: never a message, which may name a study, a patient or a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from cxrreport import errors, tracking
from cxrreport.errors import CxrReportError, MissingExtraError, RefusedImage
from cxrreport.settings import IngestSettings, TrackingSettings

CANARY = "p19876543-s50001234"


def every_error(kind: type[Exception] = CxrReportError) -> list[type[Exception]]:
    return [kind, *(below for child in kind.__subclasses__() for below in every_error(child))]


def test_the_tree_is_complete() -> None:
    """Errors of new modules are covered by the test below too."""
    declared = {one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, CxrReportError)}
    assert declared <= set(every_error())


@pytest.mark.stock("mlflow")
def test_no_message_of_an_error_reaches_the_store(tmp_path: Path) -> None:
    given = IngestSettings(input=Path("in"), output=tmp_path / "out")
    for number, kind in enumerate([*every_error(), ValueError, KeyError, FileNotFoundError, UnicodeError]):
        if issubclass(kind, MissingExtraError):
            error: Exception = kind(f"study {CANARY}", CANARY)
        elif issubclass(kind, RefusedImage):
            error = kind("not-dicom", f"study {CANARY}")
        else:
            error = kind(f"study {CANARY} is there twice")
        error.add_note(CANARY)
        error.__cause__ = OSError(2, "No such file", f"/data/{CANARY}.dcm")
        settings = given.model_copy(update={"output": tmp_path / f"out-{number}"})
        with pytest.raises(kind), tracking.start("ingest", settings, TrackingSettings(), output=settings.output):
            raise error
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.name == "mlflow.db" for path in written)
    assert [path for path in written if CANARY.encode() in path.read_bytes()] == []
    assert b"ScoreError" in (tmp_path / "mlflow.db").read_bytes()
