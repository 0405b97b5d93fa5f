"""The table of checkpoints: the published PaliGemma 2 (arXiv 2412.03555), and the project's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from transformers import PaliGemmaConfig

from cxrreport.errors import WeightsError

# Gemma 2 by the size of the whole: width, MLP, layers, heads, key-value heads, head, query scale (config.json of
# google/gemma-2-{2b,9b,27b}; the 27B scales queries by width / heads and not by the head).
_LANGUAGE = {
    "3b": (2304, 9216, 26, 8, 4, 256, 256),
    "10b": (3584, 14336, 42, 16, 8, 256, 256),
    "28b": (4608, 36864, 46, 32, 16, 128, 144),
}


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One line of the table.

    Args:
        source: hub id, or the name of a folder in the project's assets.
        size: of the whole model as the paper names it; `tiny` for the project's own.
        resolution: side of the square image, pixels.
        stage: `pt` is pre-trained and made to be fine-tuned, `mix` was fine-tuned by its authors on many tasks.
        resized: the published position table is of another resolution and is interpolated.
    """

    source: str
    size: Literal["3b", "10b", "28b", "tiny"]
    resolution: int
    stage: Literal["pt", "mix"] = "pt"
    resized: bool = False

    @property
    def image_tokens(self) -> int:
        """One per patch of 14 x 14 pixels: 256, 1024, 4096."""
        return (self.resolution // 14) ** 2

    @property
    def synthetic(self) -> bool:
        """True for the project's own, which have seen nothing but phantoms."""
        return self.size == "tiny"

    def config(self) -> Any:
        """Architecture of a published checkpoint, to plan with and to check a folder against.

        Raises:
            WeightsError: the project's own checkpoints are described by the config.json in their folder alone.
        """
        if self.size == "tiny":
            raise WeightsError(f"{self.source}: its architecture stands in the config.json of its folder")
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
    lines: dict[str, Checkpoint] = {}
    sizes: tuple[Literal["3b", "10b", "28b"], ...] = ("3b", "10b", "28b")
    for size in sizes:
        for resolution in (224, 448, 896):
            name = f"paligemma2-{size}-pt-{resolution}"
            lines[name] = Checkpoint(f"google/{name}", size, resolution)
        for resolution in (224, 448):  # no mix checkpoint was published at 896
            name = f"paligemma2-{size}-mix-{resolution}"
            lines[name] = Checkpoint(f"google/{name}", size, resolution, "mix")
    return lines


TABLE: dict[str, Checkpoint] = _published() | {
    "tiny": Checkpoint("paligemma2-tiny-224", "tiny", 224),
    "tiny-448": Checkpoint("paligemma2-tiny-224", "tiny", 448, resized=True),
    "tiny-896": Checkpoint("paligemma2-tiny-224", "tiny", 896, resized=True),
}


def is_published(name: str) -> bool:
    """True for a name of the table, or the hub id behind it, that is a checkpoint as it was published."""
    return any(name in (line, entry.source) for line, entry in TABLE.items() if not entry.synthetic)
