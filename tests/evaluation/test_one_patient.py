"""Evaluations of one study, and of several studies of one patient: undefined intervals and p-values, labelled so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient
from typer.testing import CliRunner

from cxrreport import cli
from cxrreport.records import Study
from cxrreport.review import read_evaluation, write_page

TEXTS = ("No pneumothorax. Small left effusion.", "Clear lungs. No effusion.", "Cardiomegaly.")


class NoImages:
    """A manifest without the studies of an evaluation: the page shows them without images."""

    def studies(self) -> list[Study]:
        return []


def invoke(*arguments: str | Path) -> str:
    result = CliRunner(env={"COLUMNS": "80", "TERM": "dumb", "NO_COLOR": "1"}).invoke(
        cli.app, [str(argument) for argument in arguments]
    )
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout


def evaluate(root: Path, name: str, texts: tuple[str, ...], *more: str) -> str:
    # The confidences make `evaluate` draw the risk-coverage curves too.
    rows = [{"study_id": f"s{n}", "text": text, "mean_logprob": -0.1 * n} for n, text in enumerate(texts)]
    (root / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = ["--set", "section=findings", "--set", "radgraph=tiny", "--set", "bootstrap_samples=50"]
    predictions, references = root / f"{name}.jsonl", root / "r.jsonl"
    return invoke("evaluate", "-p", predictions, "-r", references, "-o", root / name, *options, *more)


@pytest.mark.parametrize("count", [1, 3])
def test_every_output_states_that_intervals_are_undefined(tmp_path: Path, count: int) -> None:
    rows = [{"study_id": f"s{n}", "patient_id": "p", "findings": text} for n, text in enumerate(TEXTS[:count])]
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    shown = evaluate(tmp_path, "good", TEXTS[:count])
    assert "1.000 (interval undefined)" in " ".join(shown.split())
    assert "nan" not in shown.lower() and "None" not in shown

    def no_constant(name: str) -> Any:
        pytest.fail(f"{name} is not JSON")

    summary = json.loads(evaluate(tmp_path, "bad", TEXTS[1 : count + 1], "--json"), parse_constant=no_constant)
    headline = summary["radgraph_partial/model"]
    assert headline["value"] < 1 and headline["low"] is headline["high"] is None
    scores = json.loads((tmp_path / "good" / "scores.json").read_text(), parse_constant=no_constant)
    for one in scores["systems"]["model"].values():
        assert one["low"] is one["high"] is None
    assert {path.name for path in (tmp_path / "good").glob("*.png")} == {"scores.png", "findings.png", "selective.png"}
    assert pq.read_table(tmp_path / "good" / "studies.parquet").num_rows == count

    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    metrics = client.get_run(summary["run_id"]).data.metrics
    assert metrics["radgraph_partial"] == headline["value"]
    assert not [name for name in metrics if name.endswith(("/low", "/high"))]

    compared = invoke("compare", tmp_path / "good", tmp_path / "bad", "-o", tmp_path / "compared")
    assert "(interval" in compared and "undefined" in compared and "nan" not in compared.lower()
    again = invoke("compare", tmp_path / "good", tmp_path / "bad", "-o", tmp_path / "compared", "--json")
    differences = json.loads(again, parse_constant=no_constant)["differences"]
    assert differences["radgraph_partial"]["value"] > 0 and differences["radgraph_partial"]["p"] is None
    assert (tmp_path / "compared" / "compare.png").is_file()

    page = tmp_path / "review.html"
    assert write_page(read_evaluation(tmp_path / "good"), NoImages(), page) == count  # type: ignore[arg-type]
    text = page.read_text()
    assert "1.000 (interval undefined)" in text and "nan" not in text.lower().split("<script")[0]
