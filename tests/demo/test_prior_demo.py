"""`demo --prior`, with few patients; and what it has to reach, which takes a quarter of an hour for each seed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from cxrreport.demo import prior_pipeline
from cxrreport.demo.prior_pipeline import SYSTEMS, run_prior_demo
from cxrreport.errors import SettingsError
from cxrreport.settings import DemoSettings, build

CONFIGS = Path(__file__).parents[2] / "configs"
INTERVAL = {"value", "low", "high"}


def silent(*_):
    pass


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """20 patients and 2 steps: the path, not the scores."""
    settings = DemoSettings(output=tmp_path_factory.mktemp("demo") / "out", prior=True, patients=20)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prior_pipeline, "SMALLEST", 64)
        patch.setattr(prior_pipeline.two_processes, "cores", lambda: 1)  # quicker for two steps
        patch.setattr(prior_pipeline, "TRAIN", {"max_steps": 2, "batch_size": 2, "eval_every": 2})
        return settings, run_prior_demo(settings, silent)


def test_the_summary_has_an_interval_for_every_system(small):
    settings, summary = small
    assert json.loads((settings.output / "summary.json").read_text()) == summary
    assert tuple(summary["change_f1"]) == tuple(summary["radgraph_f1"]) == SYSTEMS
    assert all(set(one) == INTERVAL for one in summary["radgraph_f1_above"].values())
    assert set(summary["hallucinated_change"]) == {"no_prior"}
    assert summary["patients"] == 4
    assert summary["studies"] == 8


def test_it_runs_the_shipped_files_and_no_others(small):
    settings, _ = small
    shipped = sorted(CONFIGS.glob("*-demo-prior*.yaml"))
    outputs = [yaml.safe_load(path.read_text())["output"].removeprefix("demo-out/") for path in shipped]
    assert len(shipped) == 10
    assert all((settings.output / output).exists() for output in outputs)
    made = {path.name for path in settings.output.iterdir() if path.is_dir()}
    assert made - {"phantoms", "mlartifacts"} == {output for output in outputs if not output.endswith(".html")}


def test_both_adapters_have_one_recipe_and_one_sample_per_study(small):
    settings, _ = small
    names = ("train", "train-without")
    own, without = (json.loads((settings.output / name / "train.json").read_text()) for name in names)
    differ = {key for key in own["settings"] if own["settings"][key] != without["settings"][key]}
    assert differ == {"data", "output", "prompt", "prior_dropout"}
    assert own["samples"] == without["samples"] == 28
    assert own["cut_prefixes"] == own["cut_reports"] == 0


def test_what_is_shown_of_the_prior_study(small):
    settings, _ = small
    counts = {"generate": 4, "generate-no-prior": 0, "generate-shuffled-prior": 4, "generate-without": 0}
    for name, shown in counts.items():
        lines = (settings.output / name / "predictions.jsonl").read_text().splitlines()
        assert len(lines) == 8
        assert sum(bool(json.loads(line).get("prior_study_id")) for line in lines) == shown, name


def test_pairs_run_at_224_pixels_only(tmp_path):
    with pytest.raises(SettingsError, match="prior: the demo of pairs runs at 224 pixels"):
        build(DemoSettings, {"output": tmp_path, "prior": True, "resolution": 896}, where="demo")


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_bars(seed, tmp_path):
    summary = run_prior_demo(DemoSettings(output=tmp_path / "demo", prior=True, seed=seed), silent)
    assert summary["patients"] >= 150
    change = {system: one["value"] for system, one in summary["change_f1"].items()}
    assert change["tuned"] >= 0.60
    assert change["shuffled_prior"] <= 0.25
    assert summary["radgraph_f1_above"]["without"]["low"] > 0
    assert summary["hallucinated_change"]["no_prior"]["value"] <= 0.02
