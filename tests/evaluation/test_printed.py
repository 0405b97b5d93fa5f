"""What the commands of evaluation print."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cxrreport import cli, runs

OLD = Path(__file__).parent / "data" / "evaluation-0.1"


def test_evaluate_prints_five_scores_and_all_of_them_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    names = (
        "radgraph_partial/model",
        "radgraph_partial/blank",
        "radgraph_partial/other",
        "own",
        "bleu4",
        "findings_f1",
    )
    facts = {"scored": 7} | {name: {"value": 0.25, "low": 0.2, "high": 0.3} for name in (*names, "actionable_errors")}
    summary = runs.Summary(
        command="evaluate", output=Path("out"), seconds=1, run_id="", tracking_uri="", facts=facts, result=None
    )
    monkeypatch.setattr(runs, "evaluate", lambda *_given, **_more: summary)

    def printed(*more: str) -> str:
        return CliRunner().invoke(cli.app, ["evaluate", "-p", "p", "-r", "r", "-o", "out", *more]).stdout

    some, everything = printed(), printed("--all")
    assert some.count("0.250 (0.200 to 0.300)") == 5 and "scored" in some
    assert all(name in some for name in ("model", "blank", "actionable errors", "findings f1", "bleu4"))
    assert "own" not in some and "other" not in some
    assert everything.count("0.250 (0.200 to 0.300)") == 7
    assert json.loads(printed("--json")).keys() > facts.keys()


def test_published_results_beside_your_own() -> None:
    done = CliRunner(env={"COLUMNS": "200"}).invoke(cli.app, ["published", str(OLD)])
    assert done.exit_code == 0
    own = json.loads((OLD / "scores.json").read_text())["systems"]["model"]
    values = {words[1] for line in done.stdout.splitlines() if len(words := line.split()) > 4 and words[0] == "│"}
    assert {f"{own[name]['value']:.3f}" for name in ("radgraph_partial", "radgraph_rexrank", "bleu4")} <= values
    told = " ".join(done.stdout.replace("│", " ").split())
    assert "arXiv 2412.03555, Table 8: PaliGemma 2 3B, 896 px; PaliGemma 2 10B" in told and "None states level" in told
    assert "MedGemma 1.5" in told and "synthetic: False" in told and "cohort" in told
    rows = json.loads(CliRunner().invoke(cli.app, ["published", str(OLD), "--json"]).stdout)["published"]
    assert rows[0]["ours"] == own["radgraph_partial"]
