"""OpenVINO instead of torch: equal texts, shrinking batches, and one conversion."""

from __future__ import annotations

import logging
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from cxrreport.dataset import ImageRole
from cxrreport.demo.phantoms.drawing import draw, sample_anatomy
from cxrreport.demo.phantoms.findings import Name, PhantomFinding
from cxrreport.errors import MissingExtraError, SettingsError
from cxrreport.inference.backends import load_model
from cxrreport.inference.decoding import Engine, Request
from cxrreport.inference.openvino import graphs, load_openvino_model
from cxrreport.inference.openvino import model as openvino_model
from cxrreport.model.checkpoints import LoadedModel, load
from cxrreport.model.prompt import PromptLayout
from cxrreport.records import PriorStudy, Report
from cxrreport.settings import CheckpointSettings, GenerateSettings, PromptSettings

pytestmark = pytest.mark.skipif(
    find_spec("openvino") is None or find_spec("nncf") is None, reason="openvino and nncf (extra openvino) are missing"
)


@pytest.fixture(scope="module")
def random_model(checkpoint_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[LoadedModel, Path]:
    """The random checkpoint of two layers, unquantised, and the folder of its conversion."""
    folder = tmp_path_factory.mktemp("converted")
    settings = CheckpointSettings(name=str(checkpoint_folder), precision="float32", device="cpu")
    return load_openvino_model(settings, None, resolution=56, quantize="none", folder=folder), folder


def written(
    loaded: LoadedModel,
    requests: list[Request],
    batch_size: int,
    tokens: int = 24,
    prompt: PromptSettings = PromptSettings(),  # noqa: B008 - frozen
):
    layout = PromptLayout(loaded.tokenizer, prompt, loaded.image_tokens)
    engine = Engine(loaded, layout, batch_size=batch_size, max_new_tokens=tokens)
    return [(one.text, one.ids, round(one.mean_logprob, 3)) for one in engine.generate(requests)]


@pytest.mark.parametrize("batch_size", [3, 20])
def test_texts_of_any_batch_are_those_of_torch(loaded, random_model, studies_and_images, batch_size: int) -> None:
    requests = [
        Request(study_id=study.study_id, images=(image,), report=study.report) for study, image in studies_and_images
    ]
    ours = written(random_model[0], requests, batch_size)
    assert ours == written(loaded, requests, batch_size)
    assert len({len(ids) for _, ids, _ in ours}) > 2  # rows leave the batch at different steps


@pytest.mark.parametrize("pool", [1, 2])
def test_texts_with_lateral_and_prior_are_those_of_torch(loaded, random_model, studies_and_images, pool: int) -> None:
    """Which images a study has differs within a batch, and with `pool` also how many tokens an image has."""
    prompt = PromptSettings.model_validate({"views": "frontal+lateral", "prior": "report+image", "pool": pool})
    images, (frontal, lateral, earlier) = [image for _, image in studies_and_images], ImageRole
    prior = PriorStudy(study_id="before", days=3, image_ids=(), report=Report(findings="the heart is large"))
    requests = [
        Request(
            study_id=study.study_id,
            images=(image, *(images[number - 1 - place] for place in range(len(roles) - 1))),
            report=study.report,
            roles=roles,
            prior=prior if earlier in roles else None,
        )
        for number, (study, image) in enumerate(studies_and_images)
        for roles in [((frontal,), (frontal, lateral), (frontal, lateral, earlier))[number % 3]]
    ]
    ours = written(random_model[0], requests, 5, prompt=prompt)
    assert ours == written(loaded, requests, 5, prompt=prompt)
    alone = [replace(one, images=one.images[:1], roles=one.roles[:1], prior=None) for one in requests]
    assert ours != written(loaded, alone, 5, prompt=prompt)


def test_texts_of_the_tiny_model_are_those_of_torch(tmp_path: Path) -> None:
    settings = CheckpointSettings(name="tiny", precision="float32", device="cpu")
    draws = np.random.default_rng(3)
    shown = [(), (PhantomFinding(Name.CARDIOMEGALY, size="large"),), (PhantomFinding(Name.PACEMAKER, side="left"),)]
    requests = [
        Request(
            study_id=str(number),
            images=((255 * draw(sample_anatomy(draws), findings, 224, 224, seed=number).grey).astype(np.uint8),),
            report=Report(indication="cough" if number % 2 else ""),
        )
        for number, findings in enumerate(shown)
    ]
    ours = written(
        load_openvino_model(settings, None, resolution=224, quantize="none", folder=tmp_path), requests, 4, 64
    )
    assert ours == written(load(settings, resolution=224), requests, 4, 64)
    assert len({text for text, _, _ in ours}) > 1


def test_a_conversion_is_made_once_and_reported(random_model, checkpoint_folder: Path, caplog, monkeypatch) -> None:
    settings = CheckpointSettings(name=str(checkpoint_folder), precision="float32", device="cpu")

    def convert(*_args: object, **_kwargs: object) -> None:
        raise AssertionError("converted again")

    monkeypatch.setattr(openvino_model, "convert_model", convert)
    loaded, folder = random_model
    again = load_openvino_model(settings, None, resolution=56, quantize="none", folder=folder)
    assert again.fingerprint == loaded.fingerprint
    assert (again.image_tokens, again.dtype) == (16, torch.float32)
    caplog.set_level(logging.WARNING)
    with pytest.raises(AssertionError, match="converted again"):
        load_openvino_model(settings, None, resolution=56, quantize="int8", folder=folder)
    assert "converting" in caplog.text


def test_eight_bits_are_small_near_and_silent(
    loaded, checkpoint_folder: Path, studies_and_images, capsys, tmp_path: Path
) -> None:
    settings = CheckpointSettings(name=str(checkpoint_folder), precision="float32", device="cpu")
    small = load_openvino_model(settings, None, resolution=56, quantize="int8", folder=tmp_path)
    (weights,) = tmp_path.glob("*/language.bin")
    numbers = sum(part.numel() for part in loaded.model.model.language_model.parameters())
    assert weights.stat().st_size < 4 * numbers / 2
    assert capsys.readouterr().out == ""
    study, image = studies_and_images[0]
    request = [Request(study_id=study.study_id, images=(image,), report=study.report)]
    (eight,), (full,) = written(small, request, 1, 1), written(loaded, request, 1, 1)
    assert abs(eight[2] - full[2]) < 0.5


def test_unsupported_requests_are_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"input": tmp_path, "output": tmp_path}
    with pytest.raises(ValueError, match="needs engine: openvino"):
        GenerateSettings(**given, quantize="int8")
    with pytest.raises(ValueError, match="use engine: torch for beam search"):
        GenerateSettings(**given, engine="openvino", decoding={"method": "beam", "beams": 2})
    cuda = CheckpointSettings(name="tiny", device="cuda")
    with pytest.raises(SettingsError, match="engine: openvino runs on the CPU"):
        load_model(GenerateSettings(**given, engine="openvino"), cuda, resolution=224)
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    with pytest.raises(MissingExtraError, match=r"cxrreport\[openvino\]"):
        graphs.import_openvino()
