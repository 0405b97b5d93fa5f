"""The model that a training run begins with: checkpoint, adapter, and its parts in this process."""

from __future__ import annotations

from dataclasses import replace

import torch

from cxrreport.model import adapters, checkpoints
from cxrreport.model.checkpoints import LoadedModel
from cxrreport.model.checkpoints.sharded import load_without_weights, read_shards, without_memory
from cxrreport.model.compat import enable_gradient_checkpointing
from cxrreport.settings import TrainSettings
from cxrreport.training.distributed import ProcessGroup, shard


def load_model(
    settings: TrainSettings, resolution: int, processes: ProcessGroup
) -> tuple[LoadedModel, tuple[str, ...]]:
    """Load the checkpoint of a run and add what is trained; also returns the names of the layers with LoRA.

    A model that is sharded is split before its weights are read, so that no process holds the whole.
    """
    checkpoint = settings.checkpoint
    device = checkpoints.choose_device(checkpoint.device)
    if settings.lora is None:
        # Updates of bfloat16 weights would be rounded to nothing.
        checkpoint = checkpoint.model_copy(update={"precision": "float32"})
    empty = load_without_weights(checkpoint, resolution=resolution) if processes.sharded else None
    if processes.sharded and empty is None:
        checkpoint = checkpoint.model_copy(update={"device": "cpu"})
    loaded = empty or checkpoints.load(checkpoint, resolution=resolution)
    torch.manual_seed(settings.seed)
    modules: tuple[str, ...] = ()
    if settings.objective == "reward" and settings.reward.adapter is not None:
        loaded, modules = adapters.load_trainable(settings.reward.adapter, loaded)
    elif settings.lora is None:
        loaded.model.requires_grad_(True)
    else:
        model, modules = adapters.attach(loaded.model, settings.lora)
        loaded = replace(loaded, model=model)
    language = adapters.paligemma(loaded.model).language_model
    if settings.gradient_checkpointing:  # the frozen tower keeps no activations
        enable_gradient_checkpointing(language)
    if processes.sharded:
        if empty is not None:
            without_memory(loaded.model)
        shard(loaded.model, language, device)
        if empty is not None:
            read_shards(loaded.model, checkpoint)
        loaded = replace(loaded, device=device)
    return loaded, modules
