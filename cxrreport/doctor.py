"""Checks of this machine: packages, hardware, disk, decoders, weights, MLflow, each with a remedy."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import psutil

from cxrreport import tracking, versions
from cxrreport.errors import TrackingError
from cxrreport.settings import TrackingSettings, weights_folder

GB = 10**9
_PLENTY_OF_DISK, _MINIMUM_DISK = 50 * GB, 2 * GB
_TOLERANCE = 0.01
"""Largest difference from published values of metrics; that of RadEval's own test."""
_EXTRAS = {
    "bitsandbytes": ("qlora", "4-bit fine-tuning"),
    "openvino": ("openvino", "generation on CPUs"),
    "torchvision": ("peers", "processors of some other models"),
    "ray": ("ray", "generation on many machines"),
    "highdicom": ("sr", "reports as DICOM SR"),
    "fhir.resources": ("fhir", "reports as FHIR"),
    "pynetdicom": ("pacs", "archives"),
}


class State(StrEnum):
    """Result of a check; only `FAIL` prevents commands from running."""

    OK = "ok"
    NOTE = "note"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one check.

    Args:
        detail: the state of the machine.
        remedy: what the user can do; empty if nothing.
    """

    name: str
    state: State
    detail: str
    remedy: str = ""


def examine(folder: Path) -> Iterator[Check]:
    """Yield the results of all checks. Each takes seconds; an MLflow server that does not respond, half a minute.

    Args:
        folder: the planned parent of output folders, for disk space and the default MLflow store.
    """
    yield _packages()
    yield _processor()
    yield _gpu()
    yield _disk(folder)
    yield _decoders()
    yield from _weights()
    yield _mlflow(folder)
    yield _extras()


def _packages() -> Check:
    needed = versions.requirements()
    found = versions.installed(required.name for required in needed)
    wrong = [f"{required.name} is missing" for required in needed if required.name not in found]
    wrong += [
        f"{required.name} is {found[required.name]}, not {required.specifier}"
        for required in needed
        if required.name in found and not required.specifier.contains(found[required.name], prereleases=True)
    ]
    if wrong:
        remedy = "reinstall cxrreport in a separate environment"
        return Check("packages", State.FAIL, "; ".join(wrong), remedy)
    detail = f"python {platform.python_version()}, {versions.listed(tracking.PACKAGES)}"
    return Check("packages", State.OK, detail)


def _processor() -> Check:
    memory = psutil.virtual_memory().total / GB
    detail = f"{os.cpu_count()} cores, {memory:.0f} GB of memory"
    if memory >= 6:
        return Check("processor", State.OK, detail)
    remedy = "the demo needs 4 GB of free memory: close other programs"
    return Check("processor", State.NOTE, detail, remedy)


def _gpu() -> Check:
    import torch

    if not torch.cuda.is_available():
        remedy = "the demo needs none; the 3B model needs a GPU with 24 GB, its driver, and a CUDA build of torch"
        return Check("gpu", State.NOTE, "torch sees no CUDA device", remedy)
    devices = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    detail = ", ".join(f"{device.name} ({device.total_memory / GB:.0f} GB)" for device in devices)
    if importlib.util.find_spec("pynvml") is None:
        remedy = "pip install nvidia-ml-py, to log GPU metrics to MLflow"
        return Check("gpu", State.NOTE, detail, remedy)
    return Check("gpu", State.OK, detail)


def _disk(folder: Path) -> Check:
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.is_dir())
    free = shutil.disk_usage(existing).free
    detail = f"{free / GB:.0f} GB free in {existing}"
    remedy = "free some space, or choose another disk; the demo needs 1 GB"
    if not os.access(existing, os.W_OK):
        return Check("disk", State.FAIL, f"{existing} cannot be written", "choose another folder")
    if free >= _PLENTY_OF_DISK:
        return Check("disk", State.OK, detail)
    return Check("disk", State.NOTE if free >= _MINIMUM_DISK else State.FAIL, detail, remedy)


def _decoders() -> Check:
    from cxrreport.ingestion.dicom import installed_decoders

    plugins_of = installed_decoders()
    missing = [name for name, plugins in plugins_of.items() if not plugins]
    if not missing:
        return Check("decoders", State.OK, f"for {len(plugins_of)} compressed transfer syntaxes")
    remedy = "pip install python-gdcm pyjpegls pylibjpeg-openjpeg; such files are excluded as bad-pixel-data"
    return Check("decoders", State.NOTE, f"none for {', '.join(missing)}", remedy)


def _weights() -> Iterator[Check]:
    """Yield one check for each purpose of weights: one of several models is enough."""
    from cxrreport import weights
    from cxrreport.evaluation.radgraph.annotator import PACKAGE_CACHE

    root = weights_folder()
    by_purpose: dict[str, list[str]] = {}
    for entry in weights.CATALOGUE.values():
        by_purpose.setdefault(entry.purpose, []).append(entry.name)
    for purpose, names in by_purpose.items():
        found = [name for name in names if weights.is_complete(name, root or PACKAGE_CACHE)]
        if purpose == weights.BASE and root is None:
            found = [name for name in names if weights.is_in_hub_cache(name)]
        if found:
            yield Check(f"weights: {purpose}", State.OK, ", ".join(found))
            continue
        wanted = weights.DEFAULTS.get(purpose, names[0])
        remedy = f"cxrreport weights {wanted} --weights {root or 'DIR'}; the demo needs none"
        yield Check(f"weights: {purpose}", State.NOTE, f"none in {root or 'the caches of this machine'}", remedy)


def examine_metrics() -> Iterator[Check]:
    """Yield a check for each metric with published values: what the weights of this machine give for public pairs."""
    from cxrreport.errors import WeightsError
    from cxrreport.evaluation.metrics import Pairs
    from cxrreport.evaluation.metrics.radcliq import EXPECTED, radcliq_metric
    from cxrreport.settings import EvaluateSettings

    name = "RadCliQ-v1 (RadEval's pairs)"
    studies = [str(number) for number in range(len(EXPECTED))]
    pairs = Pairs(
        references=dict(zip(studies, (reference for _, reference, _ in EXPECTED), strict=True)),
        candidates=dict(zip(studies, (candidate for candidate, _, _ in EXPECTED), strict=True)),
    )
    settings = EvaluateSettings(predictions=Path(), references=Path(), output=Path(), baselines={})
    try:
        found = radcliq_metric(settings, None)(pairs)["radcliq_v1_radeval"].values
    except WeightsError as error:
        yield Check(name, State.NOTE, "not computed", str(error))
        return
    expected = [value for *_, value in EXPECTED]
    listed = ", ".join(f"{one:.4f} (expected {other:.4f})" for one, other in zip(found, expected, strict=True))
    if max(abs(one - other) for one, other in zip(found, expected, strict=True)) <= _TOLERANCE:
        yield Check(name, State.OK, listed)
    else:
        remedy = "verify the weights with `cxrreport weights --check`, and report the versions of `cxrreport version`"
        yield Check(name, State.FAIL, listed, remedy)


def _mlflow(folder: Path) -> Check:
    uri = tracking.tracking_uri(TrackingSettings(), folder / "any")
    public_uri = tracking.without_password(uri)
    if tracking.is_new(uri):
        return Check("mlflow", State.OK, f"{public_uri}, created by the first run")
    try:
        count = tracking.count_experiments(uri)
    except TrackingError as error:
        remedy = str(error).rpartition(". ")[2]
        return Check("mlflow", State.FAIL, f"{public_uri} does not respond", remedy)
    return Check("mlflow", State.OK, f"{public_uri}, {count} experiments")


def _extras() -> Check:
    missing = [f"{purpose} [{extra}]" for module, (extra, purpose) in _EXTRAS.items() if not _is_installed(module)]
    if not missing:
        return Check("extras", State.OK, "all")
    remedy = "pip install 'cxrreport[NAME]' for the features that you need"
    return Check("extras", State.NOTE, f"without {', '.join(missing)}", remedy)


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False
