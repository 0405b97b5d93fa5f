"""Every command once, on drawn images and with a random model of two layers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from small_pipeline import PROMPT, Pipeline, write_studies

from cxrreport import runs
from cxrreport.evaluation.metrics import metric
from cxrreport.settings import (
    CheckpointSettings,
    EvaluateSettings,
    GenerateSettings,
    IngestSettings,
    LoraSettings,
    ReviewSettings,
    TrainSettings,
    ValidationSettings,
)


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory: pytest.TempPathFactory, generation_checkpoint_folder: Path) -> Iterator[Pipeline]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        folder = tmp_path_factory.mktemp("pipeline")
        checkpoint = CheckpointSettings(name=str(generation_checkpoint_folder), precision="float32", device="cpu")
        ingested = runs.ingest(
            IngestSettings(input=write_studies(folder / "in") / "studies.csv", output=folder / "data", layout="table")
        )
        trained = runs.train(
            TrainSettings(
                data=folder / "data",
                output=folder / "train",
                checkpoint=checkpoint,
                prompt=PROMPT,
                lora=LoraSettings(rank=2, alpha=4),
                max_steps=3,
                learning_rate=0.03,
                batch_size=2,
                accumulation=1,
                validation=ValidationSettings(radgraph="tiny"),
            )
        )
        adapter = folder / "train" / "adapter"
        generated = runs.generate(
            GenerateSettings(input=folder / "data", output=folder / "tuned", adapter=adapter, max_new_tokens=8)
        )
        bare = runs.generate(
            GenerateSettings(
                input=folder / "data", output=folder / "bare", checkpoint=checkpoint, prompt=PROMPT, max_new_tokens=8
            )
        )
        evaluated = runs.evaluate(
            EvaluateSettings(
                predictions=folder / "tuned",
                references=folder / "data",
                output=folder / "scores",
                baselines={"no_adapter": folder / "bare"},
                radgraph="tiny",
                bootstrap_samples=50,
            ),
            extra_metrics=[metric("length")(lambda pairs: dict.fromkeys(pairs.references, 0.5))],
        )
        reviewed = runs.review(
            ReviewSettings(evaluation=folder / "scores", data=folder / "data", output=folder / "review.html")
        )
        yield Pipeline(folder, checkpoint, ingested, trained, generated, bare, evaluated, reviewed)
