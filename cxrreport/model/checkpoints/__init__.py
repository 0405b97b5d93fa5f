"""Base models: found on this machine or the hub, described without weights, loaded, and written."""

from cxrreport.model.checkpoints.files import download, fingerprint, load_tokenizer, locate
from cxrreport.model.checkpoints.loading import (
    LoadedModel,
    architecture,
    choose_device,
    describe,
    load,
)
from cxrreport.model.checkpoints.weights import quiet
