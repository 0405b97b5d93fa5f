"""What this machine has and lacks for the work, each line with the remedy."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from importlib import metadata
from pathlib import Path

import psutil
from packaging.requirements import Requirement

from cxrreport import tracking
from cxrreport.errors import TrackingError
from cxrreport.settings import TrackingSettings, weights_folder

GB = 10**9
_LITTLE, _FULL = 50 * GB, 2 * GB
_EXTRAS = {
    "bitsandbytes": ("qlora", "4-bit fine-tuning"),
    "openvino": ("openvino", "generation on CPUs"),
    "ray": ("ray", "generation on many machines"),
    "highdicom": ("sr", "reports as DICOM SR"),
    "fhir.resources": ("fhir", "reports as FHIR"),
    "pynetdicom": ("pacs", "queries to a PACS"),
}


class State(StrEnum):
    """How a check came out; only `FAIL` keeps the work from being done."""

    OK = "ok"
    NOTE = "note"
    FAIL = "fail"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One line.

    Args:
        detail: what was found.
        remedy: what to do; empty where nothing is to be done.
    """

    name: str
    state: State
    detail: str
    remedy: str = ""


def examine(folder: Path) -> Iterator[Check]:
    """Check after check; each takes at most a few seconds, an MLflow server that does not answer half a minute.

    Args:
        folder: where outputs are to lie, for disk space and the store of runs.
    """
    yield _packages()
    yield _processor()
    yield _gpu()
    yield _disk(folder)
    yield _decoders()
    yield from _weights()
    yield _mlflow(folder)
    yield _extras()


def dependencies() -> list[Requirement]:
    """What this package needs, without its extras."""
    needed = [Requirement(line) for line in metadata.requires("cxrreport") or ()]
    return [one for one in needed if one.marker is None or one.marker.evaluate({"extra": ""})]


def _packages() -> Check:
    wrong, shown = [], [f"python {sys.version.split()[0]}", f"cxrreport {metadata.version('cxrreport')}"]
    for one in dependencies():
        try:
            version = metadata.version(one.name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{one.name} is missing")
            continue
        if not one.specifier.contains(version, prereleases=True):
            wrong.append(f"{one.name} is {version}, not {one.specifier}")
        elif one.name in tracking.PACKAGES:
            shown.append(f"{one.name} {version}")
    if wrong:
        remedy = "install cxrreport again, into an environment of its own"
        return Check(name="packages", state=State.FAIL, detail="; ".join(wrong), remedy=remedy)
    return Check(name="packages", state=State.OK, detail=", ".join(shown))


def _processor() -> Check:
    memory = psutil.virtual_memory().total / GB
    detail = f"{os.cpu_count()} cores, {memory:.0f} GB of memory"
    if memory >= 6:
        return Check(name="processor", state=State.OK, detail=detail)
    remedy = "the demo needs 4 GB free: close other programs"
    return Check(name="processor", state=State.NOTE, detail=detail, remedy=remedy)


def _gpu() -> Check:
    import torch

    if not torch.cuda.is_available():
        return Check(
            name="gpu",
            state=State.NOTE,
            detail="torch sees no CUDA device",
            remedy="the demo needs none; for the 3B, a GPU of 24 GB, its driver, and a CUDA build of torch",
        )
    devices = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    detail = ", ".join(f"{one.name} ({one.total_memory / GB:.0f} GB)" for one in devices)
    if importlib.util.find_spec("pynvml") is None:
        remedy = "pip install nvidia-ml-py, to have the load of the GPU in MLflow"
        return Check(name="gpu", state=State.NOTE, detail=detail, remedy=remedy)
    return Check(name="gpu", state=State.OK, detail=detail)


def _disk(folder: Path) -> Check:
    there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.is_dir())
    free = shutil.disk_usage(there).free
    detail = f"{free / GB:.0f} GB free in {there}"
    remedy = "make room, or name a folder on another disk; the demo takes 1 GB"
    if not os.access(there, os.W_OK):
        return Check(name="disk", state=State.FAIL, detail=f"{there} cannot be written", remedy="name another folder")
    if free >= _LITTLE:
        return Check(name="disk", state=State.OK, detail=detail)
    return Check(name="disk", state=State.NOTE if free >= _FULL else State.FAIL, detail=detail, remedy=remedy)


def _decoders() -> Check:
    from cxrreport.ingestion.dicom.decoders import decoders

    lacking = [name for name, plugins in decoders().items() if not plugins]
    if not lacking:
        return Check(name="decoders", state=State.OK, detail=f"for {len(decoders())} compressed transfer syntaxes")
    remedy = "pip install python-gdcm pylibjpeg-openjpeg; files so written end in the ledger as bad-pixel-data"
    return Check(name="decoders", state=State.NOTE, detail=f"none for {', '.join(lacking)}", remedy=remedy)


def _weights() -> Iterator[Check]:
    """A line for the base, RadGraph and CheXbert each: one of several is enough."""
    from cxrreport import weights
    from cxrreport.evaluation.radgraph.annotator import PACKAGE_CACHE

    root = weights_folder()
    kinds: dict[str, list[str]] = {}
    for one in weights.CATALOGUE.values():
        kinds.setdefault(one.purpose, []).append(one.name)
    for purpose, names in kinds.items():
        found = [name for name in names if weights.present(name, root or PACKAGE_CACHE)]
        if purpose == weights.BASE and root is None:
            found = [name for name in names if weights.in_cache(name)]
        if found:
            yield Check(name=f"weights: {purpose}", state=State.OK, detail=", ".join(found))
            continue
        yield Check(
            name=f"weights: {purpose}",
            state=State.NOTE,
            detail=f"none in {root or 'the caches of this machine'}",
            remedy=f"cxrreport weights {weights.USUAL[purpose]} --weights {root or 'DIR'}; the demo needs none",
        )


def _mlflow(folder: Path) -> Check:
    uri = tracking.tracking_uri(TrackingSettings(), folder / "any")
    shown = tracking.without_password(uri)
    if tracking.is_new(uri):
        return Check(name="mlflow", state=State.OK, detail=f"{shown}, made by the first run")
    try:
        count = tracking.count_experiments(uri)
    except TrackingError as error:
        remedy = str(error).rpartition(". ")[2]
        return Check(name="mlflow", state=State.FAIL, detail=f"{shown} does not answer", remedy=remedy)
    return Check(name="mlflow", state=State.OK, detail=f"{shown}, {count} experiments")


def _extras() -> Check:
    lacking = [f"{purpose} [{extra}]" for module, (extra, purpose) in _EXTRAS.items() if not _found(module)]
    if not lacking:
        return Check(name="extras", state=State.OK, detail="all")
    remedy = "pip install 'cxrreport[NAME]', for those that you want"
    return Check(name="extras", state=State.NOTE, detail=f"without {', '.join(lacking)}", remedy=remedy)


def _found(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False
