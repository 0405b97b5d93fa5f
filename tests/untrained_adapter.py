"""An adapter of the tiny checkpoint after no step of training, for what depends on its card and not on its texts."""

from __future__ import annotations

from pathlib import Path

from cxrreport.model import adapters, checkpoints
from cxrreport.model.card import AdapterCard
from cxrreport.settings import CheckpointSettings, LoraSettings, PromptSettings

CHECKPOINT = CheckpointSettings(name="tiny", precision="float32", device="cpu")
LORA = LoraSettings(rank=2, alpha=4)


def write_adapter(folder: Path, **prompt: object) -> AdapterCard:
    """Write it for a prompt; returns its card."""
    loaded = checkpoints.load(CHECKPOINT, resolution=224)
    model, modules = adapters.attach(loaded.model, LORA)
    card = AdapterCard(
        checkpoint=CHECKPOINT,
        fingerprint=loaded.fingerprint,
        resolution=224,
        prompt=PromptSettings.model_validate(prompt),
        lora=LORA,
        modules=modules,
        preprocessing={"resolution": 224, "resize": "squash", "interpolation": "bilinear"},
        data_digest="ab" * 32,
        steps=1,
        synthetic=True,
    )
    adapters.save(folder, model, card)
    return card
