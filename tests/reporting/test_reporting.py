from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cxrreport import cli
from cxrreport.errors import InputError
from cxrreport.reporting import Answer, answers, read_study
from cxrreport.reporting.checklist import ITEMS, NOT_KNOWN
from cxrreport.reporting.documents import html, markdown


def write(path: Path, record: dict[str, Any], age: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"finished": True} | record))
    os.utime(path, (1_700_000_000 - age, 1_700_000_000 - age))
    return path.parent


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """The records of one study, beside those of others."""
    root = tmp_path / "runs"
    write(root / "data/ingest.json", {"layout": "openi", "digest": "d1", "kept": 7, "left_out": {"no-report": 2}})
    write(root / "other/ingest.json", {"layout": "folder", "digest": "d2"})
    trained = write(root / "train/train.json", {"data_digest": "d1", "settings": {"learning_rate": 2e-4, "seed": 3}})
    made = {
        "settings": {"adapter": str(trained / "adapter"), "decoding": {"method": "greedy"}, "seed": 0},
        "inputs": {"data": "d1", "base": "abc", "prompt": {"instruction": "a | b"}},
        "checkpoint": {"name": "paligemma2-3b-pt-896", "revision": None},
        "summary": {"failed": 0},
    }
    reports = write(root / "reports/generate.json", made | {"baseline": "none"}, age=90)
    write(root / "reports-blank/generate.json", made | {"baseline": "blank", "checkpoint": {"name": "wrong"}})
    write(root / "later/generate.json", made | {"baseline": "none", "checkpoint": {"name": "later"}})
    write(root / "old/evaluate.json", {"settings": {"predictions": "elsewhere"}}, age=500)
    scores = write(root / "scores/evaluate.json", {"settings": {"predictions": str(reports), "section": "findings"}})
    interval = {"value": 0.25, "low": 0.2, "high": 0.3}
    content = {
        "conditions": {"splits": ["test"], "metrics": {"bleu": {"numbers": ["bleu4"]}}, "inputs": {"model": "image"}},
        "systems": {"model": {"bleu4": interval, "cider": {"value": None, "low": None, "high": None}}},
        "differences": {"blank": {"bleu4": interval}},
        "counts": {"scored": 5},
    }
    (scores / "scores.json").write_text(json.dumps(content))
    write(root / "mlartifacts/x/ingest.json", {"layout": "a copy", "digest": "d1"})
    write(root / "unfinished/train.json", {"finished": False, "data_digest": "d1"})
    return root


def by_name(found: list[Answer]) -> dict[str, Answer]:
    return {one.item: one for one in found}


def test_the_records_of_one_study_are_found_and_read(runs: Path) -> None:
    study = read_study(runs)
    assert study.files == {
        "ingest": "data/ingest.json",
        "train": "train/train.json",
        "generate": "reports/generate.json",
        "evaluate": "scores/evaluate.json",
        "scores": "scores/scores.json",
    }
    found = by_name(answers(study))
    assert len(found) == len(ITEMS)
    model = found["name, version and provider of the model"]
    assert model.value == "checkpoint: paligemma2-3b-pt-896; SHA-256 of the weights: abc"
    assert model.source == "reports/generate.json: checkpoint.name; reports/generate.json: inputs.base"
    assert model.guidelines == ("TRIPOD-LLM", "MI-CLEAR-LLM", "CLAIM", "REFINE")
    assert found["flow of participants: read, included and excluded with reasons"].value == (
        "kept: 7; excluded: no-report 2"
    )
    assert found["performance on the test data with intervals"].value == "bleu4 0.250 (0.200 to 0.300), cider undefined"
    assert found["comparison with baselines"].value == "blank (bleu4 0.250 (0.200 to 0.300))"
    assert "learning rate: 0.0002" in found["hyperparameters and length of training"].value
    funding = found["funding and conflicts of interest"]
    assert (funding.value, funding.source) == (NOT_KNOWN, "")
    assert all((one.value == NOT_KNOWN) == (one.source == "") for one in found.values())


def test_runs_that_were_moved_together_belong_together(tmp_path: Path) -> None:
    was, now = Path("/elsewhere/runs"), tmp_path / "copied"
    for name in ("reports", "other"):
        made = {"output": str(was / name), "adapter": str(was / f"train-{name}/adapter")}
        write(now / f"{name}/generate.json", {"settings": made, "baseline": "none"})
        write(now / f"train-{name}/train.json", {"settings": {}})
    scored = {"output": str(was / "scores/first"), "predictions": str(was / "reports")}
    folder = write(now / "scores/first/evaluate.json", {"settings": scored})
    group = {"studies": 3, "small": True, "scores": {"bleu4": {"value": 0.5, "low": None, "high": None}}}
    content = {"conditions": {"references": "d9"}, "subgroups": {"projection": {"AP": group, "PA": group}}}
    write(now / "data/ingest.json", {"digest": "d9"})
    write(now / "other-data/ingest.json", {"digest": None})
    (folder / "scores.json").write_text(
        json.dumps(content | {"counts": {"failed_predictions": {"model": {"no-row": 2}}}})
    )
    study = read_study(now)
    assert (study.files["generate"], study.files["train"]) == ("reports/generate.json", "train-reports/train.json")
    assert study.files["ingest"] == "data/ingest.json"
    found = by_name(answers(study))
    assert found["performance in subgroups"].value == "subgroups: projection (AP (bleu4 0.500), PA (bleu4 0.500))"
    assert found["missing and failed outputs"].value == "predictions scored as empty or cut: no-row 2"


def test_documents_have_every_item_and_escape_what_they_show(runs: Path) -> None:
    found = answers(read_study(runs))
    text = markdown(found)
    assert all(f"| {one.item} |" in text for one in found) and r"a \| b" in text
    assert text.count("\n## ") == len({one.section for one in found})
    page = html([Answer("S", "<b>", ("CLAIM",), "1 < 2", "f: k"), Answer("S", "x", (), NOT_KNOWN, "")])
    assert "&lt;b&gt;" in page and "1 &lt; 2" in page and 'class="unknown"' in page and "1 of 2 items" in page


def test_the_command(runs: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(cli.app, ["reporting", str(runs), "--output", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "out/reporting.md").is_file() and (tmp_path / "out/reporting.html").is_file()
    assert f"of {len(ITEMS)} items are filled" in " ".join(done.stdout.split())
    listed = json.loads(CliRunner().invoke(cli.app, ["reporting", str(runs), "--json"]).stdout)["items"]
    assert [one["item"] for one in listed] == [item.name for item in ITEMS]


def test_a_part_of_the_runs_is_enough_and_none_is_an_error(runs: Path, tmp_path: Path) -> None:
    assert set(read_study(runs / "data").files) == {"ingest"}
    with pytest.raises(InputError, match="not a folder"):
        read_study(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no finished ingest, train, generate or evaluate"):
        read_study(tmp_path / "empty")
    (runs / "data/ingest.json").write_text("[1]")
    with pytest.raises(InputError, match=r"ingest\.json: cannot be read as a file of `ingest`"):
        read_study(runs)
