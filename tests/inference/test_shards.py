from __future__ import annotations

import logging
from pathlib import Path

import pytest

from cxrreport.errors import OutputError
from cxrreport.inference.shards import Shards
from cxrreport.records import Exclusion, Prediction, Reason

STUDIES = [f"s{number}" for number in range(7)]
INPUTS = {"data": "d", "base": "b", "adapter": None}


def prediction(study_id: str, text: str = "Clear.") -> Prediction:
    return Prediction(
        study_id=study_id,
        patient_id="p",
        image_ids=("i",),
        text=text,
        findings=text,
        impression="",
        mean_logprob=-0.5,
        min_logprob=-1.25,
        tokens=3,
        finished=True,
    )


def shards(folder: Path, **changes: object) -> Shards:
    return Shards(folder, [STUDIES[:3], STUDIES[3:6], STUDIES[6:]], inputs=INPUTS | changes)


def test_rows_are_read_back_unchanged(tmp_path: Path) -> None:
    one = shards(tmp_path / "shards")
    assert one.study_ids == {0: ("s0", "s1", "s2"), 1: ("s3", "s4", "s5"), 2: ("s6",)}
    left_out = Exclusion(source="i", study_id="s1", reason=Reason.IMAGE_MISSING, detail="gone")
    rows = [prediction("s0", 'Line\u2028separator, "quotes"\nand é.'), left_out, prediction("s2")]
    one.write(0, rows)
    assert shards(tmp_path / "shards").read(0) == rows
    assert (tmp_path / "shards/00000.jsonl").read_text(encoding="utf-8").count("\n") == 3


def test_a_shard_is_complete_when_every_study_has_its_prediction(tmp_path: Path) -> None:
    one = shards(tmp_path)
    assert not one.complete(0)
    left_out = Exclusion(source="i", study_id="s1", reason=Reason.IMAGE_MISSING)
    one.write(0, [prediction("s0"), left_out, prediction("s2")])
    assert not one.complete(0)
    one.write(0, [prediction("s0"), prediction("s1"), prediction("s2")])
    assert one.complete(0)


@pytest.mark.parametrize("study_ids", [["s0", "s1"], ["s1", "s0", "s2"], ["s0", "s1", "s2", "s3"], ["s0", "s0", "s2"]])
def test_rows_of_other_studies_are_not_written(tmp_path: Path, study_ids: list[str]) -> None:
    one = shards(tmp_path)
    with pytest.raises(ValueError, match="not those of its studies"):
        one.write(0, [prediction(study_id) for study_id in study_ids])
    assert one.read(0) is None


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe", b"[1, 2]\n", b'{"study_id": "s0"}\n', b'{"study_id": "s0", "reason": "no such reason"}\n'],
)
def test_a_damaged_shard_is_regenerated_with_a_warning(tmp_path: Path, caplog, content: bytes) -> None:
    one = shards(tmp_path)
    (tmp_path / "00000.jsonl").write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert one.read(0) is None
    assert "generated again" in caplog.text
    assert not one.complete(0)


def test_collecting_with_a_shard_missing_is_an_error(tmp_path: Path) -> None:
    one = shards(tmp_path)
    one.write(0, [prediction("s0"), prediction("s1"), prediction("s2")])
    with pytest.raises(OutputError, match=r"00001\.jsonl: missing or damaged"):
        list(one.read_all(range(3)))


def test_other_inputs_are_refused_and_named(tmp_path: Path) -> None:
    shards(tmp_path)
    shards(tmp_path)
    with pytest.raises(OutputError, match=r"other inputs \(adapter, base changed since\)"):
        shards(tmp_path, base="other", adapter="a")


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_damaged_record_of_inputs_is_an_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "inputs.json").write_text(content)
    with pytest.raises(OutputError, match="new output folder"):
        shards(tmp_path)
