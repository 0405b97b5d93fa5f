"""The weights of a checkpoint in memory: read from safetensors, in 4 bits, with other image positions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import BitsAndBytesConfig, GenerationConfig, PaliGemmaForConditionalGeneration
from transformers.utils import logging as transformers_logging

from cxrreport.errors import MismatchError, MissingExtraError, SettingsError, WeightsError
from cxrreport.model import attention


def read_weights(
    folder: Path,
    config: Any,
    *,
    dtype: torch.dtype,
    softcap: bool,
    device: torch.device,
    quantisation: Any | None = None,
) -> Any:
    """Build a `PaliGemmaForConditionalGeneration` from safetensors.

    Args:
        folder: of the checkpoint.
        config: prepared by `attention.prepare_config`.
        dtype: of weights that are not quantised.
        softcap: soft-capping is on.
        device: of the model; each tensor is read straight to it, so main memory never holds the model for a GPU.
        quantisation: of `four_bits`.

    Raises:
        WeightsError: weights are missing, damaged, or only there as pickle.
    """
    if not list(folder.glob("*.safetensors")):
        pickles = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt") for path in folder.glob(pattern))
        if pickles:
            raise WeightsError(
                f"{folder}: weights only as pickle ({pickles[0]}), which can run any code and is not loaded; "
                "convert them to safetensors on a machine that trusts them"
            )
        raise WeightsError(f"{folder}: no *.safetensors, the folder is incomplete; fetch it again")
    architecture: Any = PaliGemmaForConditionalGeneration
    generation_config: Any = GenerationConfig
    placed: dict[str, Any] = {}
    if device.type == "cuda":
        placed["device_map"] = {"": torch.cuda.current_device() if device.index is None else device.index}
    if quantisation is not None:
        placed |= {"quantization_config": quantisation, "device_map": placed.get("device_map", {"": "cpu"})}
    try:
        with quiet():
            model, report = architecture.from_pretrained(
                folder,
                config=config,
                dtype=dtype,
                attn_implementation=attention.implementation(softcap=softcap, device=device.type),
                local_files_only=True,
                use_safetensors=True,
                output_loading_info=True,
                **placed,
            )
    except SafetensorError as error:
        raise WeightsError(f"{folder}: a weight file is damaged ({error}); fetch it again") from error
    except (OSError, ValueError, RuntimeError) as error:
        raise WeightsError(f"{folder}: cannot load the weights ({' '.join(str(error).split())[:300]})") from error
    missing = sorted(report["missing_keys"])
    if missing:
        raise WeightsError(f"{folder}: {len(missing)} weights are missing, among them {missing[0]}; fetch it again")
    # Published generation settings fail or mislead here: a hybrid or static cache, several EOS ids.
    model.generation_config = generation_config(pad_token_id=0, eos_token_id=1, bos_token_id=2, do_sample=False)
    return model


def four_bits(device: torch.device) -> Any:
    """Quantisation of QLoRA (arXiv 2305.14314): 4-bit NormalFloat, quantised scales, products in bfloat16.

    Only the linear layers of the language model. The vision tower and the projector are small and process every image;
    the output layer shares its weights with the embeddings, whose rows are read as they are.

    Raises:
        SettingsError: `device` is not CUDA.
        MissingExtraError: bitsandbytes is not installed.
    """
    if device.type != "cuda":
        raise SettingsError(
            "checkpoint.precision: nf4 needs a CUDA device, and this runs on the CPU; "
            "choose bfloat16, or a smaller model"
        )
    if find_spec("bitsandbytes") is None:
        raise MissingExtraError("checkpoint.precision: nf4 (QLoRA)", "qlora")
    make: Any = BitsAndBytesConfig
    return make(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.bfloat16,
        bnb_4bit_use_double_quant=True,
        llm_int8_skip_modules=["model.vision_tower", "model.multi_modal_projector", "lm_head"],
    )


def resize_position_embeddings(model: Any, resolution: int) -> None:
    """Interpolate the vision tower's position embeddings to another resolution, in place.

    Published checkpoints do not need it: each resolution was pre-trained. It lets the tiny checkpoint run at all three
    resolutions (bicubic, as stage 2 of pre-training starts from stage 1).

    Raises:
        MismatchError: `resolution`, in pixels, is not a multiple of the patch size.
    """
    vision = model.config.vision_config
    if resolution % vision.patch_size:
        raise MismatchError(f"resolution {resolution} is not a multiple of the patch size {vision.patch_size}")
    old, new = vision.image_size // vision.patch_size, resolution // vision.patch_size
    embeddings = next(m for m in model.model.vision_tower.modules() if hasattr(m, "position_embedding"))
    table = embeddings.position_embedding.weight.detach()
    square = table.float().reshape(1, old, old, -1).permute(0, 3, 1, 2)
    resized = torch.nn.functional.interpolate(square, size=(new, new), mode="bicubic", align_corners=False)
    weight = resized.permute(0, 2, 3, 1).reshape(new * new, -1).to(table.dtype)
    embeddings.position_embedding = torch.nn.Embedding(new * new, weight.shape[1], _weight=weight.contiguous())
    embeddings.num_patches = embeddings.num_positions = new * new
    embeddings.image_size = resolution
    embeddings.position_ids = torch.arange(new * new, device=table.device).expand((1, -1))
    vision.image_size = resolution
    model.config.text_config.num_image_tokens = new * new


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress progress bars and notes of transformers."""
    log: Any = transformers_logging
    level, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()
