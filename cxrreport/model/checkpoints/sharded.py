"""A checkpoint that no process holds as a whole: built without memory, split, and read one tensor at a time.

`load_without_weights` gives a model whose weights are one number seen as a matrix, so that adapters can be added to it
on a CPU. After `without_memory` its layers are split across processes, and `read_shards` fills what each process keeps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from accelerate import init_empty_weights
from safetensors import SafetensorError, safe_open
from torch.distributed.tensor import DTensor

from cxrreport.errors import WeightsError
from cxrreport.model import attention
from cxrreport.model.checkpoints.files import locate
from cxrreport.model.checkpoints.loading import LoadedModel, describe_with_config
from cxrreport.model.compat import model_without_weights
from cxrreport.settings import CheckpointSettings

_CONTAINERS = frozenset({"base_model", "model", "vision_model", "base_layer"})
"""Parts of names that differ between releases of transformers, and that adapters add."""


def load_without_weights(settings: CheckpointSettings, *, resolution: int) -> LoadedModel | None:
    """A checkpoint as `load` gives it, with weights that take no memory; `None` if they are changed after reading.

    Raises:
        WeightsError, MismatchError, SettingsError: as `checkpoints.load`.
    """
    described, config = describe_with_config(settings, resolution)
    if resolution != int(config.vision_config.image_size):
        return None  # the position embeddings of the tiny checkpoint are interpolated
    attention.prepare_config(config, softcap=settings.softcap)
    kind = attention.implementation(softcap=settings.softcap, device=described.device.type)
    before = torch.get_default_dtype()
    torch.set_default_dtype(described.dtype)
    try:
        with init_empty_weights(include_buffers=False):
            model = model_without_weights(config, kind)
    finally:
        torch.set_default_dtype(before)
    model.tie_weights()
    _replace_weights(model, lambda p: torch.zeros((), dtype=p.dtype).expand(p.shape))
    model.requires_grad_(False)
    model.eval()
    return replace(described, model=model)


def without_memory(model: Any) -> None:
    """Move the weights of `load_without_weights` to the meta device, where they can be split; others stay."""
    _replace_weights(model, lambda p: torch.empty(p.shape, dtype=p.dtype, device="meta") if _is_seen(p) else None)


def _is_seen(parameter: torch.Tensor) -> bool:
    return parameter.dim() > 0 and parameter.numel() > 1 and not any(parameter.stride())


def _replace_weights(model: Any, make: Callable[[torch.Tensor], torch.Tensor | None]) -> None:
    made: dict[int, torch.nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if id(parameter) not in made:  # tied weights stay tied
                data = make(parameter)
                made[id(parameter)] = (
                    parameter if data is None else torch.nn.Parameter(data, requires_grad=parameter.requires_grad)
                )
            setattr(module, name, made[id(parameter)])


def read_shards(model: Any, settings: CheckpointSettings) -> None:
    """Read what this process keeps of every weight that is split and on the meta device, one tensor at a time.

    Args:
        model: sharded by rows, with or without LoRA.
        settings: of its checkpoint.

    Raises:
        WeightsError: a file is damaged, or a weight is missing.
    """
    folder = locate(settings)
    names: dict[torch.Tensor, list[str]] = {}  # tied weights have several
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if parameter.device.type == "meta":
            names.setdefault(parameter, []).append(name)
    missing = {_bare(name): parameter for parameter, own in names.items() for name in own}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, "pt") as file:
                for key in file.keys():  # noqa: SIM118 - no mapping
                    parameter = missing.get(_bare(key))
                    if isinstance(parameter, DTensor):
                        rows = torch.nn.Parameter(_own_rows(parameter, file, key), parameter.requires_grad)
                        own = names[parameter]
                        model.load_state_dict(dict.fromkeys(own, rows), strict=False, assign=True)
                        for name in own:
                            missing.pop(_bare(name), None)
        except SafetensorError as error:
            raise WeightsError(f"{path}: the weight file is damaged ({error}); fetch it again") from error
    if missing:
        name = min(missing)
        raise WeightsError(f"{folder}: {len(missing)} weights are missing, among them {name}; fetch it again")


def _own_rows(parameter: DTensor, file: Any, key: str) -> DTensor:
    mesh, rows = parameter.device_mesh, parameter.shape[0]
    each = -(-rows // mesh.size())
    first = min(mesh.get_local_rank() * each, rows)
    local = file.get_slice(key)[first : min(first + each, rows)].to(mesh.device_type, parameter.dtype, copy=True)
    return DTensor.from_local(
        local, mesh, parameter.placements, run_check=False, shape=parameter.shape, stride=parameter.stride()
    )


def _bare(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _CONTAINERS)
