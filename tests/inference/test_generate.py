from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from generation import predictions, rows
from PIL import Image as PillowImage

from cxrreport.errors import InputError, MismatchError, SettingsError
from cxrreport.inference import worker
from cxrreport.inference.completion import PHANTOMS_ONLY
from cxrreport.inference.decoding.forward import ForwardPasses
from cxrreport.model.prompt import PromptLayout
from cxrreport.records import Box
from cxrreport.settings import PromptSettings


def test_every_study_of_the_split_gets_its_report(run, layout, tmp_path: Path, make_studies) -> None:
    told: list[tuple[int, int, str]] = []
    summary = run(tmp_path / "out", progress=lambda *step: told.append(step))
    found = predictions(tmp_path / "out")
    test = [study for study in make_studies(20).studies() if study.split == "test"]
    assert list(found) == sorted(study.study_id for study in test)
    assert (summary.studies, summary.predictions, summary.failed, summary.resumed) == (18, 18, 0, 0)
    assert summary.unfinished == sum(not one.finished for one in found.values()) > 0
    assert all(found[study.study_id].image_ids == study.image_ids for study in test)
    assert all((one.findings, one.impression) == layout.parse(one.text) for one in found.values())
    assert told[0] == (0, 18, "studies")
    assert told[-1] == (18, 18, "studies")
    assert [step[0] for step in told] == sorted(step[0] for step in told)
    lines = (tmp_path / "out/predictions.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["study_id"] for line in lines] == list(found)
    assert pq.read_table(tmp_path / "out/failed.parquet").num_rows == 0


def test_the_prompt_limits_the_images_of_a_study(run, loaded, make_studies, tmp_path: Path) -> None:
    studies = make_studies(20)
    first = dataclasses.replace(studies._studies[0], image_ids=("i000", "i001", "i002"))
    studies._studies[0] = first
    layout = PromptLayout(loaded.tokenizer, PromptSettings(max_images=2), loaded.image_tokens)
    run(tmp_path / "two", studies=studies, layout=layout)
    run(tmp_path / "one", studies=studies)
    two, one = predictions(tmp_path / "two"), predictions(tmp_path / "one")
    assert two["s000"].image_ids == ("i000", "i001")
    assert one["s000"].image_ids == ("i000",)
    assert two["s000"].mean_logprob != one["s000"].mean_logprob
    assert (two["s001"].image_ids, two["s001"].text) == (one["s001"].image_ids, one["s001"].text)
    studies.missing = ("i001",)
    assert run(tmp_path / "gone", studies=studies, layout=layout).failed == 2  # s001 is of this image alone


def test_the_record_names_what_made_the_predictions(run, loaded, tmp_path: Path) -> None:
    run(tmp_path / "out", provenance={"adapter": "abc", "versions": {"torch": "x"}})
    record = json.loads((tmp_path / "out/generate.json").read_text())
    assert record["finished"] is True
    assert record["settings"]["batch_size"] == 4
    assert record["inputs"]["base"] == loaded.fingerprint
    assert record["inputs"]["adapter"] == "abc"
    assert record["inputs"]["data"] == "digest-of-the-manifest"
    assert record["inputs"]["dtype"] == "float32"
    assert record["provenance"]["versions"] == {"torch": "x"}
    assert record["summary"]["predictions"] == 18
    metadata = pq.read_schema(tmp_path / "out/predictions.parquet").metadata
    assert metadata[b"cxrreport.schema"] == b"1"
    assert json.loads(metadata[b"cxrreport.inputs"]) == record["inputs"]


def test_limit_and_split(run, tmp_path: Path) -> None:
    run(tmp_path / "three", limit=3)
    assert list(predictions(tmp_path / "three")) == ["s000", "s001", "s002"]
    run(tmp_path / "train", split="train")
    assert list(predictions(tmp_path / "train")) == ["s009", "s019"]
    run(tmp_path / "all", split=None)
    assert len(predictions(tmp_path / "all")) == 20
    with pytest.raises(InputError, match="data: no study in split 'validate'"):
        run(tmp_path / "none", split="validate")


def test_shuffled_shows_another_patients_image(run, tmp_path: Path, make_studies) -> None:
    run(tmp_path / "plain")
    run(tmp_path / "shuffled", baseline="shuffled")
    plain, shuffled = predictions(tmp_path / "plain"), predictions(tmp_path / "shuffled")
    patient_of_image = {study.image_ids[0]: study.patient_id for study in make_studies(20).studies()}
    assert plain.keys() == shuffled.keys()
    assert all(patient_of_image[one.image_ids[0]] != one.patient_id for one in shuffled.values())
    assert sorted(one.image_ids[0] for one in shuffled.values()) == sorted(one.image_ids[0] for one in plain.values())
    assert all(shuffled[study].patient_id == plain[study].patient_id for study in plain)
    run(tmp_path / "again", baseline="shuffled", limit=4)
    for study, one in predictions(tmp_path / "again").items():
        assert (one.image_ids, one.text) == (shuffled[study].image_ids, shuffled[study].text)
    run(tmp_path / "other", baseline="shuffled", seed=1)
    assert predictions(tmp_path / "other") != shuffled
    record = json.loads((tmp_path / "shuffled/generate.json").read_text())
    assert record["baseline"] == "shuffled"


def test_blank_shows_no_image_and_reads_none(run, tmp_path: Path, make_studies) -> None:
    studies = make_studies(20)
    run(tmp_path / "blank", studies=studies, baseline="blank")
    assert studies.read == []
    found = predictions(tmp_path / "blank")
    assert all(one.image_ids == () for one in found.values())
    # Without an image the indication alone tells the reports apart, and the studies have five of them.
    assert len({one.mean_logprob for one in found.values()}) <= 10
    assert len({one.text for one in found.values()}) <= 5


def test_an_unreadable_image_is_a_row_of_failed_studies(run, tmp_path: Path, make_studies) -> None:
    summary = run(tmp_path / "out", studies=make_studies(20, missing=("i003", "i011")))
    failed = pq.read_table(tmp_path / "out/failed.parquet").to_pylist()
    assert [(row["study_id"], row["source"], row["reason"]) for row in failed] == [
        ("s003", "files/i003.dcm", "image-file-missing"),
        ("s011", "files/i011.dcm", "image-file-missing"),
    ]
    assert (summary.studies, summary.predictions, summary.failed) == (18, 16, 2)
    assert set(predictions(tmp_path / "out")).isdisjoint({"s003", "s011"})


def test_no_readable_image_is_an_error_that_can_be_repaired(run, tmp_path: Path, make_studies) -> None:
    missing = tuple(f"i{number:03d}" for number in range(20))
    with pytest.raises(InputError, match=r"none of the images of 18 studies .*failed\.parquet"):
        run(tmp_path / "out", studies=make_studies(20, missing=missing))
    assert pq.read_table(tmp_path / "out/failed.parquet").num_rows == 18
    assert run(tmp_path / "out").predictions == 18


def test_a_prediction_records_its_prompt_and_images(run, loaded, layout, tmp_path: Path, make_studies) -> None:
    run(tmp_path / "out", limit=4)
    studies = make_studies(20)
    for study in studies.studies()[:4]:
        one = predictions(tmp_path / "out")[study.study_id]
        assert one.prompt == layout.prefix(study.report)
        assert one.image_sha256 == (hashlib.sha256(studies.image(study.image_ids[0]).tobytes()).hexdigest(),)
    metadata = pq.read_schema(tmp_path / "out/predictions.parquet").metadata
    assert json.loads(metadata[b"cxrreport.settings"])["max_new_tokens"] == 12
    assert json.loads(metadata[b"cxrreport.inputs"])["versions"]["torch"] == torch.__version__


def test_abstains_below_the_threshold(run, tmp_path: Path) -> None:
    assert run(tmp_path / "all").abstained == 0
    found = predictions(tmp_path / "all")
    threshold = sorted(one.mean_logprob for one in found.values())[5]
    assert run(tmp_path / "some", abstain_below=threshold).abstained == 5
    for study, one in predictions(tmp_path / "some").items():
        assert one.abstained == (found[study].mean_logprob < threshold)
        assert one.text == found[study].text


def test_several_prompts_for_one_reading(run, tmp_path: Path, make_studies) -> None:
    studies = make_studies(20, missing=("i004",))
    told: list[tuple[int, int, str]] = []
    summary = run(
        tmp_path / "out",
        studies=studies,
        prompts=("detect effusion", "caption"),
        draw_boxes=True,
        progress=lambda *step: told.append(step),
    )
    assert (summary.studies, summary.predictions, summary.failed) == (18, 34, 1)
    found = rows(tmp_path / "out")
    assert len(studies.read) == len(set(studies.read)) + sum(bool(one.boxes) for one in found)
    assert told[-1] == (18, 18, "studies")
    assert [one.prompt for one in found] == ["detect effusion", "caption en"] * 17
    assert all(not one.findings and not one.impression for one in found)
    assert not any(one.boxes or "<" in one.text for one in found[1::2])
    assert any("<loc000" in one.text for one in found[::2])
    with pytest.raises(SettingsError, match="'detect' needs an object"):
        run(tmp_path / "half", prompts=("detect",))


def test_boxes_are_drawn_on_request(run, tmp_path: Path, make_studies, monkeypatch) -> None:
    box = Box(label="effusion", top=8, left=8, bottom=40, right=48)
    monkeypatch.setattr(worker, "parse_boxes", lambda text, image, resize: (box,) if "<loc" in text else ())
    run(tmp_path / "out", prompts=("detect effusion",), draw_boxes=True, limit=6)
    run(tmp_path / "none", prompts=("detect effusion",), limit=6)
    with_boxes = [one.study_id for one in rows(tmp_path / "out") if one.boxes]
    pictures = sorted((tmp_path / "out/boxes").iterdir())
    assert [path.name.rsplit("-", 1)[0] for path in pictures] == with_boxes != []
    assert PillowImage.open(pictures[0]).size == (56, 56)
    assert not (tmp_path / "none/boxes").exists()


def test_out_of_memory_halves_the_batch_and_loses_nothing(run, tmp_path: Path, monkeypatch, caplog) -> None:
    real = ForwardPasses.read_prompts

    def crowded(self, jobs, cache, *, first):
        if first + len(jobs) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, jobs, cache, first=first)

    run(tmp_path / "whole")
    monkeypatch.setattr(ForwardPasses, "read_prompts", crowded)
    assert run(tmp_path / "out").batch_size == 2
    assert "a batch of 4 did not fit into memory; continuing with 2" in caplog.text
    whole, out = (predictions(tmp_path / name) for name in ("whole", "out"))
    assert {study: one.text for study, one in out.items()} == {study: one.text for study, one in whole.items()}


def test_images_of_another_resolution_are_refused(run, tmp_path: Path, make_studies) -> None:
    with pytest.raises(MismatchError, match=r"images are 448 x 448 .* takes 56 x 56; ingest again with resolution: 56"):
        run(tmp_path / "out", studies=make_studies(20, resolution=448))


def test_a_model_of_phantoms_has_a_warning(run, loaded, tmp_path: Path) -> None:
    assert run(tmp_path / "real").warning is None
    summary = run(tmp_path / "tiny", model=dataclasses.replace(loaded, synthetic=True))
    assert summary.warning == PHANTOMS_ONLY
    assert "has only seen phantoms" in summary.warning
    assert json.loads((tmp_path / "tiny/generate.json").read_text())["warning"] == PHANTOMS_ONLY
