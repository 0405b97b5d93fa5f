"""One frozen model per verb. A YAML file in `configs/` is one of these models and nothing else.

Unknown fields are refused, relative paths are taken from the working folder, and every field says its unit and range.
"""

from cxrreport.settings.base import WEIGHTS, Settings, build, current_names, merge, weights_folder
from cxrreport.settings.demo import DemoSettings
from cxrreport.settings.evaluation import CompareSettings, EvaluateSettings, ReviewSettings
from cxrreport.settings.inference import (
    Beam,
    Decoding,
    ExportSettings,
    GeneratedBaseline,
    GenerateSettings,
    Greedy,
    RaySettings,
    Sampling,
)
from cxrreport.settings.ingestion import IngestSettings
from cxrreport.settings.model import CheckpointSettings, LoraSettings, MergeSettings, PromptSettings
from cxrreport.settings.serving import RegisterSettings
from cxrreport.settings.tracking import TrackingSettings
from cxrreport.settings.training import PlanSettings, TrainSettings, ValidationSettings

__all__ = [
    "WEIGHTS",
    "Beam",
    "CheckpointSettings",
    "CompareSettings",
    "Decoding",
    "DemoSettings",
    "EvaluateSettings",
    "ExportSettings",
    "GenerateSettings",
    "GeneratedBaseline",
    "Greedy",
    "IngestSettings",
    "LoraSettings",
    "MergeSettings",
    "PlanSettings",
    "PromptSettings",
    "RaySettings",
    "RegisterSettings",
    "ReviewSettings",
    "Sampling",
    "Settings",
    "TrackingSettings",
    "TrainSettings",
    "ValidationSettings",
    "build",
    "current_names",
    "merge",
    "weights_folder",
]
