"""Training on the metric: rewards rise, runs resume exactly, and a reward that can be gamed is caught.

The file is also a program, started in two processes: `test_reward.py SETTINGS`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError
from safetensors.torch import load_file

from cxrreport.errors import SettingsError
from cxrreport.inference.decoding import Engine, Generated, Request
from cxrreport.records import Report
from cxrreport.scoring.rewards import length_ratio, repetition
from cxrreport.settings import Sampling, TrainSettings
from cxrreport.training.best_checkpoint import SCORE
from cxrreport.training.distributed import ProcessGroup
from cxrreport.training.finetune import train
from cxrreport.training.reward import SampledReport
from cxrreport.training.reward import loop as reward
from cxrreport.training.run import TrainResult
from cxrreport.training.step_log import read_log

Settings = Callable[..., TrainSettings]
SAMPLES = 4
HERE = Path(__file__).parent


class Sampler:
    """Samples with the engine and scores tokens with a function."""

    conditions: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self, manifest: Any, score: Callable[[Generated], float], most: int = 12) -> None:
        self.manifest, self.score, self.most = manifest, score, most

    def __call__(self, loaded, layout, images, seed) -> list[list[SampledReport]]:
        assert not loaded.model.training
        engine = Engine(loaded, layout, batch_size=8, max_new_tokens=self.most, decoding=Sampling(), seed=seed)
        requests = [
            Request(study_id=ids[0], images=(self.manifest.image(ids[0]),), report=Report(), sample=sample)
            for ids in images
            for sample in range(SAMPLES)
        ]
        reports = []
        for one in engine.generate(requests):
            value = self.score(one)
            repeated = repetition(" ".join(map(str, one.ids)))
            reports.append(SampledReport(one.ids, value, {"score": value, "repetition": repeated}))
        return [reports[first : first + SAMPLES] for first in range(0, len(reports), SAMPLES)]


@pytest.fixture
def rewarded(settings: Settings, adapter: Path) -> Settings:
    def make(**values: Any) -> TrainSettings:
        options = {"adapter": adapter, "samples": SAMPLES, "metrics": (), "weights": {"length": 1.0}, "kl": 0.0}
        given = {"objective": "reward", "reward": options | values.pop("reward", {}), "accumulation": 4}
        return settings(**given | {"max_steps": 6, "eval_every": 6, "learning_rate": 1e-2} | values)

    return make


def run(
    settings: TrainSettings, manifest: Any, score: Callable[[Generated], float], *, most: int = 12
) -> tuple[TrainResult, list[dict[str, float]]]:
    fitting = partial(reward.fit, sampler=Sampler(manifest, score, most))
    result = train(settings, manifest, log=lambda *_: None, progress=lambda *_: None, fitting=fitting)
    return result, [line for line in read_log(settings.output / "log.jsonl") if "reward" in line]


def brief(one: Generated) -> float:
    return 1 / len(one.ids)


def test_what_is_rewarded_becomes_more_likely(rewarded: Settings, manifest: Any) -> None:
    result, lines = run(rewarded(max_steps=12), manifest, brief, most=40)
    first, last = ([line["reward"] for line in lines[part]] for part in (slice(0, 3), slice(-3, None)))
    assert sum(last) > sum(first) + 0.5
    assert lines[-1]["kl"] > lines[0]["kl"] == pytest.approx(0, abs=1e-6)
    assert {"entropy", "tokens", "distinct", "reward_spread", "reward/score", "grad_norm", "clipped"} <= lines[0].keys()
    assert result.stopped == "" and (result.adapter.parent / "loss.png").stat().st_size > 10_000


def test_the_penalty_keeps_the_model_near_the_adapter(rewarded: Settings, manifest: Any, tmp_path: Path) -> None:
    free, held = (
        run(rewarded(output=tmp_path / str(kl), max_steps=8, reward={"kl": kl}), manifest, brief)[1]
        for kl in (0.0, 5.0)
    )
    assert held[-1]["kl"] < 0.5 * free[-1]["kl"]


def test_a_reward_that_is_the_same_for_all_changes_nothing(rewarded: Settings, manifest: Any, adapter: Path) -> None:
    result, lines = run(rewarded(), manifest, lambda _: 0.7)
    before, after = (load_file(folder / "adapter_model.safetensors") for folder in (adapter, result.adapter))
    assert all(line["grad_norm"] == 0 for line in lines)
    for name, tensor in before.items():
        assert tensor.equal(after[name])


@pytest.mark.parametrize(("scores", "best"), [((0.5, 0.4, 0.3), 0), ((0.5, 0.4, 0.6), 6)], ids=["worse", "better"])
def test_the_starting_adapter_is_kept_unless_a_later_validation_is_better(
    rewarded: Settings, manifest: Any, adapter: Path, scores: tuple[float, ...], best: int
) -> None:
    left = list(scores)

    def validate(*_: Any) -> dict[str, float]:
        return {SCORE: left.pop(0)}

    validate.conditions = {}  # type: ignore[attr-defined]
    fitting = partial(reward.fit, sampler=Sampler(manifest, brief))
    quiet = {"log": lambda *_: None, "progress": lambda *_: None}
    result = train(rewarded(eval_every=3), manifest, **quiet, validate=validate, fitting=fitting)
    assert (result.best_step, result.validation[SCORE], left) == (best, max(scores), [])
    before, after = (load_file(folder / "adapter_model.safetensors") for folder in (adapter, result.adapter))
    assert all(tensor.equal(after[name]) for name, tensor in before.items()) == (best == 0)


def test_the_loss_of_the_references_selects_nothing(rewarded: Settings, manifest: Any, adapter: Path) -> None:
    """Training on the metric raises it, so the lowest one would be that of the start."""
    result, _ = run(rewarded(eval_every=3), manifest, brief)
    assert (result.best_step, result.validation) == (6, {})
    before, after = (load_file(folder / "adapter_model.safetensors") for folder in (adapter, result.adapter))
    assert not all(tensor.equal(after[name]) for name, tensor in before.items())


def test_a_resumed_run_equals_an_uninterrupted_one(rewarded: Settings, manifest: Any, tmp_path: Path) -> None:
    score = brief
    whole, wanted = run(rewarded(output=tmp_path / "whole", reward={"iterations": 2}), manifest, score)

    class StoppedError(Exception):
        pass

    parted = rewarded(output=tmp_path / "parted", reward={"iterations": 2}, save_every=2)

    def stop(done: int, _total: int, label: str) -> None:
        if (done, label) == (5, "training"):
            raise StoppedError

    fitting = partial(reward.fit, sampler=Sampler(manifest, score))
    with pytest.raises(StoppedError):
        train(parted, manifest, log=lambda *_: None, progress=stop, fitting=fitting)
    result, lines = run(parted, manifest, score)
    assert result.resumed_at == 4
    drop = {"seconds"}
    assert [{k: v for k, v in line.items() if k not in drop} for line in lines] == [
        {k: v for k, v in line.items() if k not in drop} for line in wanted
    ]
    one, other = (load_file(folder / "adapter_model.safetensors") for folder in (whole.adapter, result.adapter))
    assert all(tensor.equal(other[name]) for name, tensor in one.items())


@pytest.mark.parametrize(
    ("score", "limits", "reason"),
    [
        (lambda one: len(one.ids) / 40, {"most_unfinished": 0.97}, "unfinished"),
        (lambda one: len(one.ids) / 40, {"most_repetition": 0.93}, "repetition"),
        (brief, {"fewest_distinct": 0.3}, "distinct"),
        (brief, {"most_kl": 0.5}, "KL divergence"),
    ],
    ids=["length alone", "one word", "one phrase", "far from the adapter"],
)
def test_a_gamed_reward_is_stopped_and_said(
    rewarded: Settings, manifest: Any, score: Any, limits: dict[str, float], reason: str
) -> None:
    """The reward rises while the reports become worthless; the run stops by what they look like."""
    unlimited = {"most_unfinished": 1.0, "most_repetition": 1.0, "fewest_distinct": 0.0, "most_kl": 1e9}
    settings = rewarded(max_steps=60, eval_every=60, reward=unlimited | limits)
    result, lines = run(settings, manifest, score, most=40)
    assert reason in result.stopped and result.steps < 60
    assert lines[-1]["reward"] > lines[0]["reward"]
    assert json.loads((settings.output / "train.json").read_text())["stopped"] == result.stopped


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"reward": {"adapter": None}}, "reward.adapter"),
        ({"augment": True}, "augment"),
        ({"validation": {"radgraph": "none", "patience": 2}}, "validation.radgraph"),
        ({"batch_size": 3, "accumulation": 1}, "multiple"),
    ],
)
def test_settings_that_contradict_each_other(rewarded: Settings, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        rewarded(**values)


def test_processes_share_whole_studies(rewarded: Settings) -> None:
    run_of_three: Any = SimpleNamespace(
        settings=rewarded(), processes=ProcessGroup(0, 3), loaded=SimpleNamespace(device=None, model=None)
    )
    with pytest.raises(SettingsError, match="3 processes"):
        reward.fit(run_of_three, Sampler(None, lambda _: 0.0))


def test_two_processes_equal_one(rewarded: Settings, manifest: Any, tmp_path: Path) -> None:
    alone, several = (
        rewarded(output=tmp_path / name, max_steps=3, learning_rate=1e-3, reward={"kl": 0.1, "iterations": 2})
        for name in ("alone", "several")
    )
    _, wanted = run(alone, manifest, brief)
    (tmp_path / "settings.json").write_text(several.model_dump_json())
    launch = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    done = subprocess.run(
        [sys.executable, *launch, __file__, str(tmp_path / "settings.json")],
        capture_output=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])},
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    lines = [line for line in read_log(several.output / "log.jsonl") if "reward" in line]
    names = {"loss", "kl", "reward", "entropy", "tokens", "grad_norm", "learning_rate"}
    for one, other in zip(lines, wanted, strict=True):
        assert {name: one[name] for name in names} == pytest.approx({n: other[n] for n in names}, rel=1e-3, abs=1e-5)


def test_length_and_repetition() -> None:
    assert length_ratio("a b", "a b c d") == length_ratio("a b c d", "a b") == 0.5
    assert length_ratio("", "a") == 0
    assert repetition("no effusion or edema") == repetition("short") == 0
    assert repetition("a b c d a b c d") == pytest.approx(1 / 5)
    assert repetition("word " * 50) > 0.9


if __name__ == "__main__":
    from conftest import MemoryManifest

    run(TrainSettings.model_validate_json(Path(sys.argv[1]).read_text()), MemoryManifest(), brief)
