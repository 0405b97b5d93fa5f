"""A random PaliGemma 2 of two layers for 56 px, and studies with drawn images.

The file is also run by itself, as the process that the test of resuming kills: `python conftest.py WORK OUTPUT`.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PaliGemmaConfig, PaliGemmaForConditionalGeneration

from cxrreport.errors import ManifestError
from cxrreport.inference.generate import GenerateSummary, generate
from cxrreport.model.checkpoints import LoadedModel, load
from cxrreport.model.prompt import PromptLayout
from cxrreport.records import Image, Report, Split, Study, View
from cxrreport.settings import CheckpointSettings, GenerateSettings, PromptSettings

SIDE = 56
TEXT = (
    "generate the chest x-ray report indication: cough fever chest pain FINDINGS: The heart is enlarged. Small left "
    "pleural effusion. No pneumothorax. Lungs are clear. IMPRESSION: No acute process."
)


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

    def studies(self, split: Split | None = None) -> list[Study]:
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


def write_checkpoint(folder: Path) -> Path:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=150, special_tokens=["<pad>", "<eos>", "<bos>", "<unk>"], show_progress=False
    )
    tokenizer.train_from_iterator([TEXT], trainer)
    tokenizer.add_tokens([AddedToken("\n", normalized=False)])
    tokenizer.add_special_tokens([f"<loc{number:04d}>" for number in range(8)])
    tokenizer.add_special_tokens(["<image>"])
    image_id = tokenizer.token_to_id("<image>")
    rows = image_id + 8
    config = PaliGemmaConfig(
        vision_config={
            "model_type": "siglip_vision_model",
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "patch_size": 14,
            "image_size": SIDE,
            "vision_use_head": False,
        },
        text_config={
            "model_type": "gemma2",
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "query_pre_attn_scalar": 8,
            "vocab_size": rows,
        },
        image_token_index=image_id,
        vocab_size=rows,
        projection_dim=32,
        hidden_size=32,
    )
    torch.manual_seed(1)
    model = PaliGemmaForConditionalGeneration(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                weight.normal_(std=0.1 if "embed_tokens" in name else 0.3)
        # Small embeddings and a large last norm: what is written depends on what was read, and no two logits are near.
        model.model.language_model.norm.weight.fill_(9.0)
        # EOS often enough that reports end at different lengths, and unwanted ids that would win if they were allowed.
        table = model.get_input_embeddings().weight
        table[1] *= 1.7
        table[image_id - 4 :] *= 3
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def loaded_model(folder: Path) -> LoadedModel:
    return load(CheckpointSettings(name=str(folder), precision="float32", device="cpu"), resolution=SIDE)


def layout_of(loaded: LoadedModel) -> PromptLayout:
    return PromptLayout(loaded.tokenizer, PromptSettings(), loaded.image_tokens)


@pytest.fixture(scope="session")
def checkpoint_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"))


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


def run_forty(work: Path, output: Path, progress) -> GenerateSummary:
    """The run that is killed: forty studies in ten shards, the checkpoint under `work`."""
    model = loaded_model(work / "checkpoint")
    return generate(
        GenerateSettings(input=work, output=output, split=None, batch_size=2, shard_size=4, max_new_tokens=12),
        Studies(some_studies(40)),  # type: ignore[arg-type]
        model,
        layout_of(model),
        {"adapter": None},
        progress,
    )


@pytest.fixture
def forty():
    return run_forty


if __name__ == "__main__":

    def slow(done: int, total: int, label: str) -> None:
        sys.stdout.write(f"{done}\n")
        sys.stdout.flush()
        time.sleep(0.02)

    run_forty(Path(sys.argv[1]), Path(sys.argv[2]), slow)
