"""The forward pass of training: frozen features instead of pixels, and the output head on the suffix only."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch

from cxrreport.model import adapters
from cxrreport.model.attention import border_mask
from cxrreport.model.checkpoints import LoadedModel
from cxrreport.model.compat import image_arguments
from cxrreport.model.prompt import to_pixels
from cxrreport.training.loss import predicting, row_losses
from cxrreport.training.vision_features import VisionFeatures, autocast

INPUTS = ("input_ids", "attention_mask", "token_type_ids", "position_ids")


def forward(
    loaded: LoadedModel, model: Any, batch: dict[str, Any], features: VisionFeatures | None, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """One pass, with the output head on the positions that predict the suffix only.

    Args:
        loaded: the model, with its fused layers (`model.fused.fused`).
        model: `loaded.model`, or its wrapper for several processes.
        batch: of `Collator`.
        features: of the split that the batch is from; `None` if the vision tower is trained or sharded.
        dtype: of the matrix products.

    Returns:
        The loss of each predicting position, float32[N], and the labels, int64[B, L], on the model's device.
    """
    device, softcap = loaded.device, loaded.softcap
    texts = {key: batch[key].to(device) for key in INPUTS}
    labels = batch["labels"].to(device)
    grey = batch.get("grey")
    projector = adapters.paligemma(loaded.model).multi_modal_projector
    head = loaded.model.get_output_embeddings()
    with autocast(device, dtype):
        if features is None:
            images: dict[str, Any] = {"pixel_values": to_pixels(grey.to(device))}  # type: ignore[union-attr]
        else:
            hidden = features(index=batch["index"], grey=grey)
            projector_trains = any(p.requires_grad for p in projector.parameters())
            with torch.set_grad_enabled(torch.is_grad_enabled() and projector_trains):
                images = image_arguments(projector(hidden))
        keep, border = predicting(labels), {}
        targets = labels[:, 1:][keep[:, :-1]]
        if not softcap:
            # One prefix length for the batch, see `PromptLayout.collate_training`.
            length = int((batch["token_type_ids"][0] == 0).sum())
            border = {"prefix_length": length, "prefix_padded": not bool(batch["attention_mask"][:, 0].all())}
            texts["attention_mask"] = border_mask(texts["attention_mask"], length)
            keep = keep[:, length - 1 :]
        in_blocks = not (softcap or head.weight.requires_grad)
        with row_losses(head, targets) if in_blocks else nullcontext():
            outputs = model(**texts, **images, **border, use_cache=False, logits_to_keep=keep)
    if in_blocks:
        return outputs.logits, labels
    return torch.nn.functional.cross_entropy(outputs.logits.float(), targets, reduction="none"), labels
