"""The known checkpoints: the published PaliGemma 2 (arXiv 2412.03555), and the tiny one of this project."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from transformers import PaliGemmaConfig

from cxrreport.errors import WeightsError

# Gemma 2 by the size of the whole model: width, MLP, layers, heads, key-value heads, head, query scale (config.json of
# google/gemma-2-{2b,9b,27b}; the 27B scales queries by width / heads instead of by the head).
_LANGUAGE = {
    "3b": (2304, 9216, 26, 8, 4, 256, 256),
    "10b": (3584, 14336, 42, 16, 8, 256, 256),
    "28b": (4608, 36864, 46, 32, 16, 128, 144),
}


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One known checkpoint.

    Args:
        source: hub id, or the name of a folder in the project's assets.
        size: of the whole model as the paper names it; `tiny` for that of this project.
        resolution: side of the square image, pixels.
        stage: `pt` is pre-trained, to be fine-tuned; `mix` was fine-tuned by its authors on many tasks.
        resized: the stored position embeddings are of another resolution and are interpolated.
    """

    source: str
    size: Literal["3b", "10b", "28b", "tiny"]
    resolution: int
    stage: Literal["pt", "mix"] = "pt"
    resized: bool = False

    @property
    def image_tokens(self) -> int:
        """Tokens per image, one per patch of 14 x 14 pixels: 256, 1024, 4096."""
        return (self.resolution // 14) ** 2

    @property
    def synthetic(self) -> bool:
        """True for checkpoints of this project, which have only seen phantoms."""
        return self.size == "tiny"

    def config(self) -> Any:
        """Architecture of a published checkpoint, for resource estimates and to check a folder.

        Raises:
            WeightsError: a checkpoint of this project, which only its config.json describes.
        """
        if self.size == "tiny":
            raise WeightsError(f"{self.source}: not a published checkpoint; read config.json in its folder")
        width, mlp, layers, heads, kv_heads, head, scale = _LANGUAGE[self.size]
        return PaliGemmaConfig(
            vision_config={
                "model_type": "siglip_vision_model",
                "hidden_size": 1152,
                "intermediate_size": 4304,
                "num_hidden_layers": 27,
                "num_attention_heads": 16,
                "patch_size": 14,
                "image_size": self.resolution,
                "vision_use_head": False,
            },
            text_config={
                "model_type": "gemma2",
                "hidden_size": width,
                "intermediate_size": mlp,
                "num_hidden_layers": layers,
                "num_attention_heads": heads,
                "num_key_value_heads": kv_heads,
                "head_dim": head,
                "query_pre_attn_scalar": scale,
                "vocab_size": 257216,
            },
            image_token_index=257152,
            vocab_size=257216,
            projection_dim=width,
            hidden_size=width,
        )


def _published() -> dict[str, Checkpoint]:
    entries: dict[str, Checkpoint] = {}
    sizes: tuple[Literal["3b", "10b", "28b"], ...] = ("3b", "10b", "28b")
    for size in sizes:
        for resolution in (224, 448, 896):
            name = f"paligemma2-{size}-pt-{resolution}"
            entries[name] = Checkpoint(f"google/{name}", size, resolution)
        for resolution in (224, 448):  # no mix checkpoint was published at 896
            name = f"paligemma2-{size}-mix-{resolution}"
            entries[name] = Checkpoint(f"google/{name}", size, resolution, "mix")
    return entries


CHECKPOINTS: dict[str, Checkpoint] = _published() | {
    "tiny": Checkpoint("paligemma2-tiny-224", "tiny", 224),
    "tiny-prior": Checkpoint("paligemma2-tiny-224-prior", "tiny", 224),
    "tiny-448": Checkpoint("paligemma2-tiny-224", "tiny", 448, resized=True),
    "tiny-896": Checkpoint("paligemma2-tiny-224", "tiny", 896, resized=True),
}


def is_published(name: str) -> bool:
    """True for the name or hub id of a checkpoint as it was published."""
    return any(name in (known, entry.source) for known, entry in CHECKPOINTS.items() if not entry.synthetic)


def hub_name(name: str) -> str:
    """The hub id of a known checkpoint; any other name as it is."""
    entry = CHECKPOINTS.get(name)
    return entry.source if entry is not None else name
