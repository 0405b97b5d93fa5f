"""`priors_rewriter: model` as a command: a random model proposes, the checks hold, and a stopped run continues."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from random_causal_model import write_model

from cxrreport import runs
from cxrreport.ingestion import ingest as ingestion
from cxrreport.model.sentence_editor import ModelEditor
from cxrreport.reports.priors import mentions_prior
from cxrreport.settings import IngestSettings

FINDINGS = ("Stable cardiomegaly.", "No new effusion. Small effusion.", "Stable small effusion.", "Clear lungs.")


@pytest.fixture
def settings(
    make_mimic: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., IngestSettings]:
    monkeypatch.setattr(ingestion, "STUDIES_PER_SHARD", 2)
    root = make_mimic(6)
    for number, path in enumerate(sorted(root.rglob("s*.txt"))):
        path.write_text(f"FINDINGS: {FINDINGS[number % 4]}")
    model = {"model": str(write_model(tmp_path / "model")), "precision": "float32", "device": "cpu", "batch_size": 1}

    def make(name: str, **changes: Any) -> IngestSettings:
        values = {"input": root, "output": tmp_path / name, "priors": "all", "priors_rewriter": "model"}
        return IngestSettings.model_validate(values | {"rewriter": model, "tracking": {"enabled": False}} | changes)

    return make


def written(folder: Path) -> tuple[Any, ...]:
    record = json.loads((folder / "ingest.json").read_text())
    return record["texts"], record["digest"], pq.read_table(folder / "manifest.parquet")["findings"].to_pylist()


def test_a_model_runs_once_for_every_sentence_and_process(
    settings: Callable[..., IngestSettings], tmp_path: Path
) -> None:
    steps: list[tuple[int, int, str]] = []
    runs.ingest(settings("one"), progress=lambda *step: steps.append(step))
    assert [step for step in steps if step[2] == "sentences"] == [(n, 3, "sentences") for n in range(4)]
    texts, _, findings = written(tmp_path / "one")
    assert texts["mentioned"] == 9 == texts["accepted"] + texts["unchanged"] + texts["rejected"]
    assert not any(map(mentions_prior, findings)) and "No effusion" not in " ".join(findings)
    record = json.loads((tmp_path / "one" / "ingest.json").read_text())["settings"]
    assert len(record["rewriter_digest"]) == 64 and "{sentence}" in record["rewriter"]["prompt"]
    assert not list((tmp_path / "one").rglob("*.sqlite"))
    runs.ingest(settings("two", workers=2))
    for job in ("1/3", "2/3", "3/3"):
        runs.ingest(settings("array", shard=job))
    runs.ingest(settings("array"))
    assert written(tmp_path / "one") == written(tmp_path / "two") == written(tmp_path / "array")


def test_a_run_that_is_stopped_in_the_model_continues(
    settings: Callable[..., IngestSettings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []
    answer = ModelEditor._answer

    def stops(editor: ModelEditor, batch: list[str]) -> list[str]:
        if len(asked) == 2:
            asked.append([])
            raise KeyboardInterrupt
        asked.append(list(batch))
        return answer(editor, batch)

    monkeypatch.setattr(ModelEditor, "_answer", stops)
    with pytest.raises(KeyboardInterrupt):
        runs.ingest(settings("out"))
    runs.ingest(settings("out"))
    assert len(asked) == 4 and len({sentence for batch in asked for sentence in batch}) == 3
    before = len(asked)
    runs.ingest(settings("out"))  # finished
    monkeypatch.setattr(ModelEditor, "_loaded", property(lambda _: pytest.fail("the model is loaded")))
    runs.ingest(settings("out"))
    assert len(asked) == before


def test_ingests_share_a_cache(
    settings: Callable[..., IngestSettings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = {**settings("one").rewriter.model_dump(), "cache": tmp_path / "answers.sqlite"}  # type: ignore[union-attr]
    runs.ingest(settings("one", rewriter=model))
    monkeypatch.setattr(ModelEditor, "_answer", lambda *_: pytest.fail("a sentence is asked twice"))
    runs.ingest(settings("two", rewriter=model, resize="pad"))
    assert written(tmp_path / "one")[2] == written(tmp_path / "two")[2]
