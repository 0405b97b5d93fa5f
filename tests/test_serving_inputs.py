"""A served model that reads a lateral and the prior study, and what it does with rows that lack them."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from untrained_adapter import CHECKPOINT, write_adapter

from cxrreport import serving
from cxrreport.dataset import ImageRole
from cxrreport.demo.phantoms.dicom import to_dicom
from cxrreport.demo.phantoms.studies import plan_studies
from cxrreport.inference.decoding import Engine, Request
from cxrreport.ingestion.dicom import read_radiograph
from cxrreport.ingestion.images import to_square
from cxrreport.model import adapters, checkpoints
from cxrreport.model.prompt import PromptLayout
from cxrreport.records import PriorStudy, Report
from cxrreport.request_limits import limit_requests
from cxrreport.settings import PromptSettings

BOTH = PromptSettings.model_validate({"views": "frontal+lateral", "prior": "report+image", "pool": 2})
TOKENS = 8


def dicom(seed: int, *, lateral: bool = False, view: str | None = None) -> bytes:
    (study, *_) = plan_studies(1, seed, smallest=96, full_size=0)
    dataset, content = to_dicom(study, lateral=lateral), io.BytesIO()
    if view is not None:
        dataset.ViewPosition = view
        if not view:
            del dataset.PatientOrientation
    dataset.save_as(content, enforce_file_format=True)
    return content.getvalue()


FRONTAL, LATERAL, PRIOR = dicom(1), dicom(1, lateral=True), dicom(2)
PRIOR_TEXT = "HISTORY: Fever.\nFINDINGS: Small left pleural effusion.\nIMPRESSION: Effusion."


def served(folder: Path, prompt: PromptSettings) -> tuple[Any, Engine]:
    """A model as MLflow would load it, and an engine on the same weights."""
    write_adapter(folder, **prompt.model_dump())
    reports = serving.ReportModel()
    sizes = {"max_pixels": 1 << 20, "max_rows": 4, "batch_size": 2, "max_new_tokens": TOKENS}
    reports.load_context(SimpleNamespace(artifacts={"adapter": str(folder)}, model_config=sizes))
    loaded = adapters.load(folder, checkpoints.load(CHECKPOINT, resolution=224))
    layout = PromptLayout(loaded.tokenizer, prompt, loaded.image_tokens)
    return reports, Engine(loaded, layout, batch_size=2, max_new_tokens=TOKENS)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return served(tmp_path_factory.mktemp("both"), BOTH)


def square(file: bytes) -> Any:
    grey = read_radiograph(file, max_pixels=1 << 20).grey
    return to_square(grey, resolution=224, resize="squash", interpolation="bilinear")


def test_rows_with_and_without_other_inputs_are_read_as_generate_reads_them(both: Any) -> None:
    model, engine = both
    shared = {"dicom": FRONTAL, "indication": "Cough."}
    texts = {"prior_report": PRIOR_TEXT, "prior_days": 120}
    rows = [shared, shared | {"lateral": base64.b64encode(LATERAL).decode()}, shared | texts | {"prior": PRIOR}]
    rows.append(shared | {"lateral": LATERAL, "prior_report": PRIOR_TEXT})
    found = model.predict(None, pd.DataFrame(rows)).to_dict("records")
    images = {ImageRole.FRONTAL: square(FRONTAL), ImageRole.LATERAL: square(LATERAL), ImageRole.PRIOR: square(PRIOR)}
    report = Report(indication="Fever.", findings="Small left pleural effusion.", impression="Effusion.")
    days = PriorStudy(study_id="before", days=120, image_ids=(), report=report)
    unknown = PriorStudy(study_id="before", days=None, image_ids=(), report=report)
    frontal, lateral, prior = ImageRole
    expected = []
    for roles, shown in (
        ((frontal,), None),
        ((frontal, lateral), None),
        ((frontal, prior), days),
        ((frontal, lateral), unknown),
    ):
        given = tuple(images[role] for role in roles)
        one = Request(study_id="s", images=given, report=Report(indication="Cough."), roles=roles, prior=shown)
        expected.append(engine.generate([one])[0])
    assert [one["text"] for one in found] == [one.text for one in expected]
    for one, wanted in zip(found, expected, strict=True):
        assert one["mean_logprob"] == pytest.approx(wanted.mean_logprob, abs=1e-5)
    assert len({round(one.mean_logprob, 6) for one in expected}) == len(expected)
    assert "prior study, 120 days earlier: FINDINGS: Small left pleural effusion." in expected[2].prompt


def test_a_lateral_whose_header_names_no_view_is_read_as_a_lateral(both: Any) -> None:
    model, _ = both
    rows = [{"dicom": FRONTAL, "lateral": file} for file in (dicom(3, lateral=True), dicom(3, lateral=True, view=""))]
    first, second = model.predict(None, pd.DataFrame(rows)).to_dict("records")
    assert first["text"] == second["text"]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"lateral": FRONTAL}, "row 0: lateral: the view of this file is "),
        ({"lateral": b"no dicom"}, "row 0: lateral: not-dicom"),
        ({"lateral": "SECRET!"}, "row 0: lateral: not Base64"),
        ({"prior": LATERAL}, "row 0: prior: not-frontal"),
        *(
            ({name: value}, f"row 0: {name}: send a text")
            for name in ("lateral", "prior_report")
            for value in (5, ["SECRET"])
        ),
        ({"prior_report": "Technique: SECRET"}, "row 0: prior_report: no findings or impression in it"),
        ({"prior_report": "SECRET " * 20_000}, "row 0: prior_report: more than 100,000 characters"),
        ({"prior_days": 3}, "row 0: prior_days: there is no prior study in this row"),
        *(
            ({"prior": PRIOR, "prior_days": days}, "row 0: prior_days: send the days between both studies")
            for days in (-1, 1.5, "SECRET", True, float("inf"), 10**400, ["SECRET"])
        ),
        ({"lateral": LATERAL, "dicom": ""}, "row 0: give either"),
    ],
)
def test_other_inputs_that_cannot_be_used_are_refused_by_name(both: Any, row: dict[str, Any], reason: str) -> None:
    model, _ = both
    with pytest.raises(serving.RefusedRequest) as refused:
        model.predict(None, [{"dicom": FRONTAL} | row])
    assert refused.value.get_http_status_code() == 400
    assert reason in refused.value.serialize_as_json()
    assert "SECRET" not in refused.value.serialize_as_json()


@pytest.mark.parametrize(
    ("prompt", "refused", "accepted"),
    [
        ({}, {"lateral": LATERAL, "prior": PRIOR, "prior_report": PRIOR_TEXT, "prior_days": 3}, {}),
        ({"prior": "report"}, {"lateral": LATERAL, "prior": PRIOR}, {"prior_report": PRIOR_TEXT, "prior_days": 3}),
        ({"prior": "image", "pool": 2}, {"prior_report": PRIOR_TEXT}, {"prior": PRIOR, "prior_days": 0}),
    ],
)
def test_inputs_that_the_model_was_not_trained_with_are_refused(
    prompt: dict[str, Any], refused: dict[str, Any], accepted: dict[str, Any], tmp_path: Path
) -> None:
    model, _ = served(tmp_path, PromptSettings.model_validate(prompt))
    for name, value in refused.items():
        with pytest.raises(serving.RefusedRequest, match=f"row 0: {name}: this model was trained without it"):
            model.predict(None, [{"dicom": FRONTAL, name: value}])
    (report,) = model.predict(None, [{"dicom": FRONTAL} | accepted]).to_dict("records")
    assert report["text"]


def test_the_size_of_a_request_allows_for_all_files_of_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    import fastapi

    from cxrreport.serving.rows import files_of

    monkeypatch.setattr(fastapi, "FastAPI", fastapi.FastAPI)  # restored after this test
    sizes = [files_of(prompt) for prompt in (PromptSettings(), PromptSettings(prior="report"), BOTH)]
    assert sizes == [1, 1, 3]
    limit_requests(30_000, 2, files=3)
    (limits,) = fastapi.FastAPI().user_middleware
    assert limits.kwargs["max_bytes"] - (1 << 20) == 3 * 2 * 30_000 * 4 // 3
