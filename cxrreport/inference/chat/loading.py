"""Loading of an image-text-to-text model with its processor, from safetensors and without remote code."""

from __future__ import annotations

import hashlib
from typing import Any

import torch

from cxrreport.errors import MismatchError, MissingExtraError, SettingsError
from cxrreport.model.checkpoints import LoadedModel, choose_device, fingerprint, locate, quiet
from cxrreport.settings import CheckpointSettings

_FILES = ("*.json", "*.safetensors", "*.jinja", "*.txt", "tokenizer.model", "spiece.model")
_EXTRA = "peers"


def load_chat_model(settings: CheckpointSettings, *, resolution: int) -> LoadedModel:
    """Load a model; `tokenizer` of the result is its processor.

    Args:
        settings: name, revision, precision and device.
        resolution: side of the images that it will see, pixels; the processor resizes them.

    Raises:
        WeightsError: the checkpoint is missing or cannot be fetched.
        SettingsError: 4-bit weights, or CUDA, which torch does not see.
        MismatchError: transformers has no such image-text-to-text model without remote code, or the files do not fit.
        MissingExtraError: the processor needs torchvision.
    """
    if settings.precision == "nf4":
        raise SettingsError("checkpoint.precision: nf4 needs engine: torch; use bfloat16 or float32")
    from transformers import AutoModelForImageTextToText, AutoProcessor

    device = choose_device(settings.device)
    dtype = torch.float32 if settings.precision == "float32" else torch.bfloat16
    folder = locate(settings, files=_FILES)
    safe = {"local_files_only": True, "trust_remote_code": False}
    try:
        with quiet():
            processor: Any = AutoProcessor.from_pretrained(folder, **safe)  # type: ignore[no-untyped-call]
            model: Any = AutoModelForImageTextToText.from_pretrained(folder, dtype=dtype, use_safetensors=True, **safe)
            if processor.chat_template is None:
                raise ValueError("it has no chat template")
    except Exception as error:  # transformers raises anything for files that do not fit
        if "torchvision" in f"{error}{error.__cause__}" or "VIDEO_PROCESSOR" in str(error):
            raise MissingExtraError(f"the processor of checkpoint '{settings.name}'", _EXTRA) from error
        raise MismatchError(
            f"checkpoint '{settings.name}': not an image-text-to-text model that transformers loads without remote "
            f"code ({type(error).__name__}: {str(error)[:300]}); engine: transformers needs config.json, "
            "*.safetensors, the processor's files and a chat template"
        ) from error
    digest = hashlib.sha256(fingerprint(folder).encode())
    for path in sorted(path for pattern in ("*.json", "*.jinja") for path in folder.glob(pattern)):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return LoadedModel(
        model=model.to(device).eval().requires_grad_(False),
        tokenizer=processor,
        name=settings.name,
        revision=settings.revision,
        fingerprint=digest.hexdigest(),
        resolution=resolution,
        image_tokens=0,
        softcap=False,
        device=device,
        dtype=dtype,
        synthetic=False,
    )
