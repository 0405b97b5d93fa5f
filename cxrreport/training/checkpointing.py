"""The training state on disk: trained weights and optimiser, as safetensors, without pickle.

The learning rate, the order of the samples, dropout and augmentation are functions of the seed and the step, so nothing
else has to be saved. Weights are collected by parameter name rather than with `state_dict()`, to which 4-bit layers add
entries that are not parameters.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)

from cxrreport.errors import TrainingError
from cxrreport.storage.atomic_files import atomic_path, write_json
from cxrreport.training.distributed import ProcessGroup, gathered, placed_like
from cxrreport.training.interruption import StopRequest
from cxrreport.training.run import Run

WEIGHTS, OPTIMIZER, STATE = "trained.safetensors", "optimizer.safetensors", "trainer_state.json"
"""Files of a checkpoint; `STATE` is written last, so a folder that has it is complete."""

SAVE_SECONDS = 900.0
"""Time after which a checkpoint is saved, whatever `save_every` says."""
_STOP = 1_000_000  # more than the first process adds for an overdue checkpoint

_KEPT = 2
"""The last checkpoint, and the one before it in case the last is damaged."""


def checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints in a folder, oldest first."""
    return sorted(path.parent for path in folder.glob(f"*/{STATE}"))


def latest(folder: Path) -> Path | None:
    """The last complete checkpoint; removes those that a kill left partly written or partly removed."""
    for path in folder.glob("*"):
        if path.is_dir() and not (path / STATE).exists():
            shutil.rmtree(path)
    return next(reversed(checkpoints(folder)), None)


def trained_weights(model: torch.nn.Module, processes: ProcessGroup) -> dict[str, torch.Tensor]:
    """Trainable parameters by name, unsharded, in main memory of the first process; empty in all others.

    Must be called in all processes, which gather one parameter at a time.
    """
    weights: dict[str, torch.Tensor] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            whole = gathered(parameter)
            if processes.first:
                weights[name] = whole
    return weights


def save_checkpoint(
    folder: Path, step: int, model: torch.nn.Module, optimizer: torch.optim.Optimizer, processes: ProcessGroup
) -> None:
    """Write `folder/NNNNNNN` and remove all but the last two checkpoints. Must be called in all processes.

    Raises:
        OutputError: the disk is full or the folder cannot be written; earlier checkpoints remain.
    """
    weights = trained_weights(model, processes)
    state = _optimizer_state(model, optimizer).get("state", {})
    if processes.first:
        target = folder / f"{step:07d}"
        with atomic_path(target / WEIGHTS) as path:
            save_file(weights, path)
        with atomic_path(target / OPTIMIZER) as path:
            save_file({f"{name}.{key}": t for name, tensors in state.items() for key, t in tensors.items()}, path)
        write_json(target / STATE, {"global_step": step})
        for old in checkpoints(folder)[:-_KEPT]:
            (old / STATE).unlink()
            shutil.rmtree(old)
    processes.wait()


def save_if_due(run: Run, step: int, optimizer: torch.optim.Optimizer, stop: StopRequest, saved_at: float) -> float:
    """Save a checkpoint if it is time, and stop if that was asked for. Must be called in all processes.

    Returns:
        The time of the last checkpoint, in seconds of the monotonic clock.

    Raises:
        OutputError: as `save_checkpoint`.
        KeyboardInterrupt: the run was asked to stop; the step is saved.
    """
    processes, last = run.processes, step == run.steps
    overdue = processes.first and time.monotonic() - saved_at > SAVE_SECONDS
    asked = processes.total(_STOP * stop.asked + overdue)  # the same answer in all processes
    if last or asked or step % run.save_every == 0:
        save_checkpoint(run.folder / "checkpoints", step, run.loaded.model, optimizer, processes)
        saved_at = time.monotonic()
    if asked >= _STOP and not last and not run.best.exhausted:
        raise KeyboardInterrupt(f"stopped after step {step} of {run.steps}, which is saved")
    return saved_at


def load_weights(checkpoint: Path, model: torch.nn.Module) -> None:
    """Load the trained weights of a checkpoint into a model of the same shape.

    Raises:
        TrainingError: the checkpoint is damaged or of a model of another shape.
    """
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    try:
        saved = load_file(checkpoint / WEIGHTS)
        if saved.keys() != parameters.keys():
            raise ValueError("other layers are trained")
        with torch.no_grad():
            for name, tensor in saved.items():
                parameters[name].copy_(placed_like(tensor, parameters[name]))
    except Exception as error:  # safetensors derives its error from Exception
        raise _unusable(checkpoint, error) from error


def load_optimizer(
    checkpoint: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer, processes: ProcessGroup
) -> None:
    """Load the optimiser state of a checkpoint. Must be called in all processes.

    Raises:
        TrainingError: the checkpoint is damaged or of a model of another shape.
    """
    state = _optimizer_state(model, optimizer)
    try:
        if processes.first:
            state["state"] = _by_parameter(load_file(checkpoint / OPTIMIZER), model, optimizer)
        options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=processes.count > 1)
        set_optimizer_state_dict(model, optimizer, state, options=options)
    except Exception as error:
        raise _unusable(checkpoint, error) from error


def _optimizer_state(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """`state` and `param_groups` by parameter name, unsharded, in main memory; empty in all processes but the first."""
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    return dict(get_optimizer_state_dict(model, optimizer, options=options))


def _by_parameter(
    saved: dict[str, torch.Tensor], model: torch.nn.Module, optimizer: torch.optim.Optimizer
) -> dict[str, dict[str, torch.Tensor]]:
    """Tensors by parameter name; version 0.1.0 numbered the parameters in the order of the optimiser's groups."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    ordered = [names[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in saved.items():
        name, _, kind = key.rpartition(".")
        state.setdefault(ordered[int(name)] if name.isdecimal() else name, {})[kind] = tensor
    return state


def _unusable(checkpoint: Path, error: Exception) -> TrainingError:
    return TrainingError(
        f"{checkpoint}: cannot resume from this checkpoint ({' '.join(str(error).split())[:200]}); "
        "remove its folder to resume from the one before"
    )
