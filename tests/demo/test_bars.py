"""What `make demo` has to reach. Skipped where it has not been run; `.ci/run` runs it first."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

SUMMARY = Path(__file__).parents[2] / "demo-out" / "summary.json"
BASELINES = ("no_adapter", "most_frequent", "shuffled", "blank")


@pytest.fixture(scope="module")
def summary():
    if not SUMMARY.exists():
        pytest.skip("no demo-out/summary.json: run `make demo` first")
    return json.loads(SUMMARY.read_text())


def test_enough_patients(summary):
    assert summary["patients"] >= 150


@pytest.mark.parametrize("baseline", BASELINES)
def test_radgraph_f1_is_ten_points_above_each_baseline(summary, baseline):
    above = summary["radgraph_f1_above"][baseline]
    assert above["value"] >= 0.10
    assert above["low"] > 0


def test_finding_f1_of_the_fine_tuned_model(summary):
    scores = {system: one["value"] for system, one in summary["finding_f1"].items()}
    assert scores["tuned"] >= 0.60
    assert scores["tuned"] >= scores["base_terse"] - 0.10
    assert scores["tuned"] >= scores["shuffled"] + 0.40


def test_every_finding_but_the_fine_nodule_is_found(summary):
    scores = dict(summary["finding_f1_by_finding"])
    scores.pop("nodule", None)
    assert len(scores) == 7
    assert min(scores.values()) > 0.4, scores


def test_few_reports_contradict_themselves(summary):
    assert summary["contradictions"] <= 0.05


def test_peak_memory(summary):
    assert summary["peak_memory_mb"] < 4096
