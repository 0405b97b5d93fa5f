"""The model of a generation, by the engine that the settings name."""

from __future__ import annotations

from cxrreport.model import adapters, checkpoints
from cxrreport.model.checkpoints import LoadedModel
from cxrreport.settings import CheckpointSettings, GenerateSettings


def load(settings: GenerateSettings, checkpoint: CheckpointSettings, *, resolution: int) -> LoadedModel:
    """A checkpoint with the adapter of the settings, if there is one; with Ray, all but the weights.

    Args:
        settings: `engine`, `quantize`, `converted` and `adapter`.
        checkpoint: where the adapter's card has named it, not that of the settings.
        resolution: side of the images, pixels.

    Raises:
        WeightsError, MismatchError: as `model.checkpoints.load` and `model.adapters.load`.
        MissingExtraError, SettingsError, OutputError: as `inference.openvino.model.load`.
    """
    if settings.ray.address is not None:  # the actors have it
        return checkpoints.describe(checkpoint, resolution=resolution)
    if settings.engine == "openvino":
        from cxrreport.inference.openvino import model as openvino

        return openvino.load(
            checkpoint,
            settings.adapter,
            resolution=resolution,
            quantize=settings.quantize,
            folder=settings.converted,
        )
    loaded = checkpoints.load(checkpoint, resolution=resolution)
    return loaded if settings.adapter is None else adapters.load(settings.adapter, loaded)
