"""A random PaliGemma 2 of two layers for 56 px, and studies with drawn images.

The file is also a program, whose child processes a test kills: `python conftest.py CHECKPOINT OUTPUT`.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from cxrreport.errors import ManifestError
from cxrreport.inference.completion import COMMAND, GenerateSummary
from cxrreport.inference.decoding import Generated, Request
from cxrreport.inference.generate import generate_predictions
from cxrreport.model.checkpoints import LoadedModel, load
from cxrreport.model.prompt import PromptLayout
from cxrreport.records import Image, Report, Split, Study, View
from cxrreport.settings import CheckpointSettings, GenerateSettings, PromptSettings
from cxrreport.storage.job_arrays import part_folder
from cxrreport.storage.output_folder import output_folder

SIDE = 56


class Studies:
    """What `generate` needs of a manifest. The image of a study depends on its id alone."""

    def __init__(self, studies: list[Study], *, missing: tuple[str, ...] = (), resolution: int = SIDE) -> None:
        self._studies = studies
        self.missing = missing
        self.resolution = resolution
        self.preprocessing = {"resolution": resolution, "resize": "squash", "interpolation": "bilinear"}
        self.digest = "digest-of-the-manifest"
        self.read: list[str] = []
        self.images = {
            image_id: Image(
                image_id=image_id,
                study_id=study.study_id,
                patient_id=study.patient_id,
                split=study.split,
                view=View.PA,
                source=f"files/{image_id}.dcm",
                rows=SIDE,
                columns=SIDE,
            )
            for study in studies
            for image_id in study.image_ids
        }

    def studies(self, split: Split | None = None, **_: bool) -> list[Study]:
        return [study for study in self._studies if split in (None, study.split)]

    def image(self, image_id: str) -> np.ndarray:
        if image_id in self.missing:
            raise ManifestError(f"image {image_id}: not in the image store; ingest again")
        self.read.append(image_id)
        return drawn(image_id)


def drawn(image_id: str) -> np.ndarray:
    seed = int.from_bytes(image_id.encode()[-6:], "big")
    return np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE), dtype=np.uint8)


def some_studies(count: int, *, per_patient: int = 2) -> list[Study]:
    words = ["cough", "fever", "chest pain", "", "cough fever chest pain cough fever"]
    return [
        Study(
            study_id=f"s{number:03d}",
            patient_id=f"p{number // per_patient:03d}",
            split=Split.TRAIN if number % 10 == 9 else Split.TEST,
            image_ids=(f"i{number:03d}",),
            report=Report(indication=words[number % len(words)], findings="Lungs are clear."),
        )
        for number in range(count)
    ]


def loaded_model(folder: Path) -> LoadedModel:
    return load(CheckpointSettings(name=str(folder), precision="float32", device="cpu"), resolution=SIDE)


def layout_of(loaded: LoadedModel) -> PromptLayout:
    return PromptLayout(loaded.tokenizer, PromptSettings(), loaded.image_tokens)


@pytest.fixture(scope="session")
def checkpoint_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random checkpoint whose reports end at different lengths."""
    from random_checkpoint import write_generation_checkpoint

    return write_generation_checkpoint(tmp_path_factory.mktemp("checkpoint"), image_size=SIDE)


@pytest.fixture(scope="session")
def loaded(checkpoint_folder: Path) -> LoadedModel:
    return loaded_model(checkpoint_folder)


@pytest.fixture(scope="session")
def layout(loaded: LoadedModel) -> PromptLayout:
    return layout_of(loaded)


@pytest.fixture
def make_studies():
    """`Studies` of so many studies, some of whose images may be missing."""

    def make(count: int, **options) -> Studies:
        return Studies(some_studies(count), **options)

    return make


@pytest.fixture
def studies_of():
    """`Studies` of the given ones."""
    return Studies


@pytest.fixture
def fresh_loaded(checkpoint_folder: Path) -> LoadedModel:
    """A model that the test may change."""
    return loaded_model(checkpoint_folder)


@pytest.fixture(scope="session")
def studies_and_images() -> list[tuple[Study, np.ndarray]]:
    return [(study, drawn(study.image_ids[0])) for study in some_studies(14)]


def into_output_folder(
    settings: GenerateSettings,
    studies,
    loaded: LoadedModel,
    layout: PromptLayout,
    progress=None,
    provenance=None,
    similarity=None,
) -> GenerateSummary:
    """Generate from studies in memory into the output folder of the settings, as `generate` does."""
    where = part_folder(settings.output, settings.shard)
    with output_folder(where, command=COMMAND, settings=settings.model_dump(mode="json")) as folder:
        return generate_predictions(
            settings,
            studies,
            loaded,
            layout,
            provenance or {"adapter": None},
            progress or (lambda done, total, label: None),
            folder,
            similarity,
        )


@pytest.fixture
def generate_into():
    return into_output_folder


def generate_settings(output: Path, **changes: object) -> GenerateSettings:
    given = {"input": "data", "output": output, "batch_size": 4, "shard_size": 5, "max_new_tokens": 12}
    return GenerateSettings(**given | changes)  # type: ignore[arg-type]


@pytest.fixture
def run(loaded, layout, make_studies, generate_into):
    """Generate for 20 studies, 18 of them of the test split."""

    default = layout

    def running(
        output: Path,
        *,
        studies=None,
        progress=None,
        provenance=None,
        model=loaded,
        layout=default,
        **changes,
    ):
        return generate_into(
            generate_settings(output, **changes),
            studies if studies is not None else make_studies(20),
            model,
            layout,
            progress,
            provenance,
        )

    return running


@pytest.fixture(scope="session")
def requests(studies_and_images) -> list[Request]:
    return [
        Request(study_id=study.study_id, images=(image,), report=study.report) for study, image in studies_and_images
    ]


@pytest.fixture(scope="session")
def batched(loaded, layout, requests) -> list[Generated]:
    from generation import engine

    return engine(loaded, layout).generate(requests)


def run_forty(model: LoadedModel, output: Path, progress) -> GenerateSummary:
    """The run that is killed: forty studies in ten shards."""
    return into_output_folder(
        GenerateSettings(input="data", output=output, split=None, batch_size=2, shard_size=4, max_new_tokens=6),
        Studies(some_studies(40)),
        model,
        layout_of(model),
        progress,
    )


@pytest.fixture
def forty():
    return run_forty


def run_in_two_children(checkpoint: Path, output: Path) -> None:
    """Run in a child process that prints its id and its progress; when it was killed, resume in another one."""

    def slow(done: int, total: int, label: str) -> None:
        sys.stdout.write(f"{os.getpid()} {done}\n")
        sys.stdout.flush()
        time.sleep(0.02)

    model = loaded_model(checkpoint)
    for _ in range(2):
        child = os.fork()
        if not child:
            run_forty(model, output, slow)
            os._exit(0)
        os.waitpid(child, 0)


if __name__ == "__main__":
    run_in_two_children(Path(sys.argv[1]), Path(sys.argv[2]))
