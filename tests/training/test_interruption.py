"""Signals and time limits: what is lost when a run is stopped."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from cxrreport.settings import TrainSettings
from cxrreport.training import checkpointing
from cxrreport.training.finetune import train

Settings = Callable[..., TrainSettings]


def saved(settings: TrainSettings) -> list[int]:
    return sorted(int(path.name) for path in (settings.output / "checkpoints").iterdir() if path.name.isdigit())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_saves_the_step_and_stops(settings: Settings, manifest: Any, number: int) -> None:
    """For any `save_every`: by default a checkpoint is saved once per epoch, which may take hours."""
    given = settings(save_every=8, eval_every=8, max_steps=8)
    before = signal.getsignal(number)

    def log(values: dict[str, float], step: int) -> None:
        if step == 3 and "loss" in values:
            os.kill(os.getpid(), number)

    with pytest.raises(KeyboardInterrupt, match="stopped after step 3 of 8, which is saved"):
        train(given, manifest, log=log, progress=lambda *_: None)
    assert saved(given) == [3]
    assert signal.getsignal(number) is before
    result = train(given, manifest, log=lambda *_: None, progress=lambda *_: None)
    assert result.resumed_at == 3


def test_a_second_signal_stops_at_once(settings: Settings, manifest: Any) -> None:
    given = settings(save_every=8, eval_every=8, max_steps=8)

    def log(values: dict[str, float], step: int) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(given, manifest, log=log, progress=lambda *_: None)
    assert not (given.output / "checkpoints").exists() or saved(given) == []


def test_a_checkpoint_is_saved_when_the_last_one_is_old(
    settings: Settings, manifest: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpointing, "SAVE_SECONDS", 0.0)
    steps: list[int] = []
    monkeypatch.setattr(checkpointing, "save_checkpoint", lambda folder, step, *_: steps.append(step))
    train(settings(save_every=8, eval_every=8, max_steps=4), manifest, log=lambda *_: None, progress=lambda *_: None)
    assert steps == [1, 2, 3, 4]


def test_a_resumed_run_reports_its_step(settings: Settings, manifest: Any, caplog: pytest.LogCaptureFixture) -> None:
    given = settings(save_every=2, max_steps=6)

    def log(values: dict[str, float], step: int) -> None:
        if step == 4 and "loss" in values:
            raise RuntimeError

    caplog.set_level("INFO", "cxrreport")
    with pytest.raises(RuntimeError):
        train(given, manifest, log=log, progress=lambda *_: None)
    assert "resum" not in caplog.text
    train(given, manifest, log=lambda *_: None, progress=lambda *_: None)
    assert "resuming from step 2 of 6" in caplog.text
    train(given, manifest, log=lambda *_: None, progress=lambda *_: None)
    assert "train has finished before; these are its results" in caplog.text
