from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cxrreport.errors import SettingsError, WeightsError
from cxrreport.evaluation.metrics import Pairs
from cxrreport.evaluation.registry import selected_metrics
from cxrreport.settings import EvaluateSettings

MODULE = """
from cxrreport.evaluation.metrics import metric


@metric("length_ratio", conditions={"unit": "words of candidate per word of reference"})
def length_ratio(pairs):
    return {study: len(pairs.candidates[study].split()) / len(text.split()) for study, text in pairs.references.items()}


@metric("judge", remote=True)
def judge(pairs):
    raise AssertionError("text was sent away")


def no_metric(pairs):
    return {}
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Install a package with these entry points, as pip would: a module beside its dist-info."""

    def installed(points: str) -> None:
        (tmp_path / "plugged_metrics.py").write_text(MODULE, encoding="utf-8")
        info = tmp_path / "plugged_metrics-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugged-metrics\nVersion: 1.0\n", encoding="utf-8")
        (info / "entry_points.txt").write_text(f"[cxrreport.metrics]\n{points}", encoding="utf-8")
        monkeypatch.syspath_prepend(str(tmp_path))

    return installed


def settings(*metrics: str, allow_remote: bool = False) -> EvaluateSettings:
    return EvaluateSettings(
        predictions=Path("p"), references=Path("r"), output=Path("o"), metrics=metrics, allow_remote=allow_remote
    )


def test_an_installed_package_plugs_in_by_its_entry_point(install: Callable[[str], None]) -> None:
    install("length_ratio = plugged_metrics:length_ratio\n")
    (found,), _ = selected_metrics(settings("length_ratio"), ())
    numbers = found(Pairs(references={"1": "no effusion seen"}, candidates={"1": "no effusion"}))
    assert numbers["length_ratio"].values.tolist() == [pytest.approx(2 / 3)]
    assert found.conditions == {"unit": "words of candidate per word of reference"}
    assert [one.name for one in selected_metrics(settings("rouge_l", "plugged_metrics:length_ratio"), ()).metrics][
        -1
    ] == "length_ratio"


def test_a_metric_that_sends_text_away_is_refused_unless_allowed(install: Callable[[str], None]) -> None:
    install("judge = plugged_metrics:judge\n")
    for name in ("judge", "plugged_metrics:judge"):
        with pytest.raises(SettingsError, match="metric judge sends reports to another machine; add --allow-remote"):
            selected_metrics(settings(name), ())
        assert [one.name for one in selected_metrics(settings(name, allow_remote=True), ()).metrics] == ["judge"]


def test_an_unknown_metric_lists_the_known_ones(install: Callable[[str], None]) -> None:
    install(
        "length_ratio = plugged_metrics:length_ratio\nbroken = plugged_metrics_gone:x\nf = plugged_metrics:no_metric\n"
    )
    known = (
        "bertscore, bertscore_radeval, bleu, broken, chexbert, cider, clinical, f, length_ratio, radcliq, radgraph, "
        "ratescore, rouge_l, or module:metric"
    )
    with pytest.raises(SettingsError, match=f"'meteor' is unknown; use one of {known}"):
        selected_metrics(settings("meteor"), ())
    with pytest.raises(SettingsError, match="'broken' of plugged_metrics_gone:x cannot be loaded"):
        selected_metrics(settings("broken"), ())
    with pytest.raises(SettingsError, match="'f' is not a metric"):
        selected_metrics(settings("f"), ())


def test_a_metric_without_its_weights_is_left_out_and_says_what_to_fetch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CXRREPORT_WEIGHTS", raising=False)
    chosen = settings("rouge_l", "ratescore", "chexbert").model_copy(update={"chexbert": tmp_path})
    found, missing = selected_metrics(chosen, ())
    assert [one.name for one in found] == ["rouge_l", "rouge_l_radeval"]
    assert missing.keys() == {"ratescore", "chexbert"}
    assert "cxrreport weights ratescore --weights DIR" in missing["ratescore"]
    with pytest.raises(WeightsError, match="RaTE-NER-Deberta was not found"):
        selected_metrics(settings("ratescore"), ())
