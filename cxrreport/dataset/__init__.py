"""The data set that `ingest` writes and later commands read: manifest, images, covariates, pseudonyms.

Only `Manifest` and the functions that read and write files need PyArrow, which the decoder processes of `ingest` do not
load: those names are imported on first use.
"""

from typing import TYPE_CHECKING, Any

from cxrreport.dataset.covariates import COVARIATES, Covariates, reduce_covariates
from cxrreport.dataset.packed import PackedTexts
from cxrreport.dataset.pseudonyms import (
    HIDDEN_INPUT,
    Pseudonyms,
    hide_identifiers,
    hide_input_name,
    id_for_message,
    key_version,
    path_for_message,
    recorded_input,
)

if TYPE_CHECKING:
    from cxrreport.dataset.image_store import ImageStore, decode_png, encode_png, write_image_shard
    from cxrreport.dataset.inputs import ImageRole, ModelInput, model_input, samples_of
    from cxrreport.dataset.manifest import (
        EXCLUSION_LOG,
        IMAGES,
        MANIFEST,
        Manifest,
        ManifestRow,
        content_digest,
        write_exclusion_log,
        write_manifest,
    )

__all__ = [
    "COVARIATES",
    "EXCLUSION_LOG",
    "HIDDEN_INPUT",
    "IMAGES",
    "MANIFEST",
    "Covariates",
    "ImageRole",
    "ImageStore",
    "Manifest",
    "ManifestRow",
    "ModelInput",
    "PackedTexts",
    "Pseudonyms",
    "content_digest",
    "decode_png",
    "encode_png",
    "hide_identifiers",
    "hide_input_name",
    "id_for_message",
    "key_version",
    "model_input",
    "path_for_message",
    "recorded_input",
    "reduce_covariates",
    "samples_of",
    "write_exclusion_log",
    "write_image_shard",
    "write_manifest",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from cxrreport.dataset import image_store, inputs, manifest

    return next(getattr(module, name) for module in (manifest, inputs, image_store) if hasattr(module, name))
