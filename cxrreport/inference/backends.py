"""Loading of the model for a generation, with the engine that the settings select."""

from __future__ import annotations

from cxrreport.inference.chat.template import ChatLayout, read_template
from cxrreport.model import adapters, checkpoints
from cxrreport.model.checkpoints import LoadedModel
from cxrreport.model.prompt import PromptLayout
from cxrreport.settings import CheckpointSettings, GenerateSettings, PromptSettings


def load_model(settings: GenerateSettings, checkpoint: CheckpointSettings, *, resolution: int) -> LoadedModel:
    """Load a checkpoint and the adapter of the settings, if they have one; on CUDA it is merged.

    With Ray, only describe the checkpoint.

    Args:
        settings: `engine`, `quantize`, `converted`, `ray` and `adapter` are used.
        checkpoint: the base model; replaces that of the settings.
        resolution: side length of the images in pixels.

    Raises:
        WeightsError, MismatchError: as `model.checkpoints.load` and `model.adapters.load`.
        MissingExtraError, SettingsError, OutputError: as `inference.openvino.load_openvino_model`.
        MissingExtraError, MismatchError: as `inference.chat.load_chat_model`.
    """
    if settings.ray.address is not None:  # the actors load the weights
        return checkpoints.describe(checkpoint, resolution=resolution)
    if settings.engine == "openvino":
        from cxrreport.inference.openvino import load_openvino_model

        return load_openvino_model(
            checkpoint,
            settings.adapter,
            resolution=resolution,
            quantize=settings.quantize,
            folder=settings.converted,
        )
    if settings.engine == "transformers":
        from cxrreport.inference.chat import load_chat_model

        return load_chat_model(checkpoint, resolution=resolution)
    loaded = checkpoints.load(checkpoint, resolution=resolution)
    if settings.adapter is None:
        return loaded
    loaded = adapters.load(settings.adapter, loaded)
    # On a GPU a step of decoding is as long as its number of operations; weights of four bits cannot take the sum.
    return adapters.merged(loaded) if loaded.device.type == "cuda" and checkpoint.precision != "nf4" else loaded


def layout_of(settings: GenerateSettings, loaded: LoadedModel, prompt: PromptSettings) -> PromptLayout | ChatLayout:
    """The prompt layout of a loaded model.

    Raises:
        SettingsError: the prompt file is missing or invalid.
    """
    if settings.prompt_template is not None:
        return ChatLayout(read_template(settings.prompt_template))
    return PromptLayout(loaded.tokenizer, prompt, loaded.image_tokens)


def inputs_of(layout: PromptLayout | ChatLayout) -> PromptSettings:
    """What the model reads of a study; only `max_images`, `views` and `prior` are meant."""
    if isinstance(layout, ChatLayout):
        return PromptSettings(max_images=layout.settings.max_images)
    return layout.settings
