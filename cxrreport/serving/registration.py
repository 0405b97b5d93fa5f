"""Register a fine-tuned model, if it is to be so only when it is better than the one that is registered.

uri = register(RegisterSettings(adapter=Path("train/adapter"), aliases=("candidate",))).uri
mlflow.pyfunc.load_model(uri).predict(pandas.DataFrame({"path": ["study/image.dcm"]}))
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any
from uuid import uuid4

import pandas as pd
from mlflow.pyfunc import save_model

import cxrreport
from cxrreport import tracking, versions
from cxrreport.errors import InputError, MismatchError, ScoreError, SettingsError
from cxrreport.evaluation.evaluate import MAIN
from cxrreport.model import checkpoints
from cxrreport.model.card import AdapterCard, model_card
from cxrreport.serving.model import SIGNATURE
from cxrreport.settings import CompareSettings, RegisterSettings
from cxrreport.storage.command_files import read_scores
from cxrreport.storage.output_folder import finished_record

_CODE = """from mlflow.models import set_model

from cxrreport.serving import ReportModel

set_model(ReportModel())
"""
_ARTIFACT = "model"
_LEVEL = 0.05
"""Two-sided p-value of the paired test below which a difference counts."""
_SCORES = "cxrreport.scores"
"""Tag of a version: the folder with its evaluation."""
_LISTED = 12
"""Scores in a description."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """A version of a registered model.

    Args:
        uri: `models:/NAME/VERSION`, as `mlflow models serve --model-uri` takes it.
        tracking_uri: URI of its store.
        better_than: alias of the version that it was compared with; empty without a comparison.
    """

    name: str
    version: str
    aliases: tuple[str, ...]
    run_id: str
    uri: str
    tracking_uri: str
    better_than: str = ""

    def as_dict(self) -> dict[str, Any]:
        """All fields as JSON values."""
        return asdict(self)


def register(settings: RegisterSettings) -> Registered:
    """Pack the model, log it to an MLflow run, and register it as the next version of its name.

    The digests of the run link the version to the training run and its data.

    Raises:
        SettingsError: tracking is disabled.
        WeightsError: the adapter folder is missing or damaged.
        InputError: the scores cannot be read, or those of the version to compare with cannot be found.
        MismatchError: the scores are of another adapter.
        ScoreError: the model is not better than the one that it had to be better than, or cannot be compared with it.
        TrackingError: the store cannot be reached or refuses the model.
    """
    if not settings.tracking.enabled:
        raise SettingsError("tracking.enabled: registering a model needs MLflow; set it to true")
    # By default the store is beside the output folder, here that of the training. The name is new each time, because
    # continuing an earlier run would change the files of the version that was registered before.
    output = settings.adapter.resolve().parent.with_name(f".registered-{uuid4().hex}")
    card = AdapterCard.read(settings.adapter)
    digest = checkpoints.fingerprint(settings.adapter)
    uri = tracking.tracking_uri(settings.tracking, output)
    if settings.scores is not None:
        _check_scores(settings.scores, digest)
    compared = _check_better(settings, uri) if settings.if_better_than is not None else ""
    with (
        tempfile.TemporaryDirectory() as temporary,
        tracking.start("register", settings, settings.tracking, output=output) as run,
    ):
        run.tags({"mlflow.runName": f"register-{settings.name}"})
        run.dataset("adapter", digest, "model", steps=card.steps)
        run.dataset("checkpoint", card.fingerprint, "model", checkpoint=card.checkpoint.name)
        run.link("cxrreport.model_run", "adapter", digest)
        folder = Path(temporary) / _ARTIFACT
        pack(settings, folder)
        tags = {"digest.adapter": digest, "checkpoint": card.checkpoint.name, "synthetic": str(card.synthetic).lower()}
        description = model_card(card)
        if settings.scores is not None:
            tags |= {_SCORES: str(settings.scores.resolve()), **_short(settings.scores)}
            description = f"{_described(settings.scores)}\n{description}"
        version = tracking.register_model(
            uri, run.run_id, folder, settings.name, settings.aliases, tags, _without_front(description)
        )
    return Registered(
        name=settings.name,
        version=version,
        aliases=settings.aliases,
        run_id=run.run_id,
        uri=f"models:/{settings.name}/{version}",
        tracking_uri=tracking.without_password(uri),
        better_than=compared,
    )


def _check_scores(scores: Path, adapter: str) -> None:
    """Raise `MismatchError` unless an evaluation is of this adapter."""
    predictions = Path(finished_record(scores, "evaluate")["settings"]["predictions"])
    scored = finished_record(predictions, "generate").get("provenance", {}).get("adapter")
    if scored != adapter:
        raise MismatchError(f"{scores}: these are scores of another adapter; evaluate the reports of this one")


def _check_better(settings: RegisterSettings, uri: str) -> str:
    """The alias, if the model is better by the headline than its version; empty if the alias does not exist yet."""
    from cxrreport.evaluation.compare import compare

    if settings.scores is None:
        raise SettingsError("if_better_than: give the evaluation of this adapter as well (scores, --scores DIR)")
    alias = str(settings.if_better_than)
    tags = tracking.tags_of_alias(uri, settings.name, alias)
    if tags is None:
        return ""
    other = settings.against or (Path(tags[_SCORES]) if _SCORES in tags else None)
    if other is None or not other.is_dir():
        raise InputError(
            f"{settings.name}@{alias}: its evaluation is not on this machine; give the folder (against, --against DIR)"
        )
    _check_scores(other, tags.get("digest.adapter", ""))
    number = _headline(settings.scores)
    with tempfile.TemporaryDirectory() as temporary:
        output = Path(temporary) / "compare"
        wanted = CompareSettings(first=settings.scores, second=other, output=output, numbers=(number,))
        found = compare(wanted).differences[number]
    change = f"{number} {found.first:.3f} against {found.second:.3f}, p = {found.p:.3f} by the paired test"
    if not (found.difference.value > 0 and found.p < _LEVEL):
        raise ScoreError(f"not registered: the model is not better than {settings.name}@{alias} ({change})")
    return alias


def _headline(scores: Path) -> str:
    return str(next(iter(read_scores(scores)["systems"][MAIN])))


def _short(scores: Path) -> dict[str, str]:
    """Tags with the headline, its bounds, and the short conditions."""
    read = read_scores(scores)
    number, one = next(iter(read["systems"][MAIN].items()))
    bounds = {f"{number}.{side}": f"{one[side]:.4f}" for side in ("low", "high") if one[side] is not None}
    return {number: f"{one['value']:.4f}", **bounds, "section": str(read["conditions"]["section"])}


def _described(scores: Path) -> str:
    """Scores with intervals, and conditions, as Markdown."""
    read = read_scores(scores)
    conditions: Mapping[str, Any] = read["conditions"]
    lines = ["| score | value | 95% interval |", "|---|---|---|"]
    for number, one in list(read["systems"][MAIN].items())[:_LISTED]:
        if one["value"] is not None:
            low, high = ("undefined" if one[side] is None else f"{one[side]:.3f}" for side in ("low", "high"))
            lines.append(f"| {number} | {one['value']:.3f} | {low} to {high} |")
    shared = {name: conditions[name] for name in ("section", "cohort", "references", "synthetic")}
    counts = f"{read['counts']['scored']} studies of {read['counts']['patients']} patients"
    return "\n".join([*lines, "", f"{counts}; conditions: {json.dumps(shared)}", ""])


def _without_front(card: str) -> str:
    """A model card without the fields for the hub, which MLflow would show as text."""
    before, sign, rest = card.partition("---\nlibrary_name:")
    return before + rest.partition("---\n")[2].lstrip() if sign else card


def pack(settings: RegisterSettings, folder: Path) -> None:
    """Write the MLflow model into `folder`.

    Raises:
        WeightsError: the adapter folder is missing or damaged.
    """
    from cxrreport.demo.phantoms.dicom import example

    AdapterCard.read(settings.adapter)
    dicom = example()
    with tempfile.TemporaryDirectory() as temporary:
        code = Path(temporary) / "report_model.py"
        code.write_text(_CODE, encoding="utf-8")
        save_model(
            path=str(folder),
            python_model=str(code),
            artifacts={"adapter": str(settings.adapter)},
            code_paths=[str(Path(cxrreport.__file__).parent)],
            pip_requirements=requirements(),
            signature=SIGNATURE,
            input_example=pd.DataFrame({"dicom": [dicom], "indication": ["Cough."]}),
            model_config=settings.model_dump(
                mode="json", include={"max_pixels", "max_rows", "batch_size", "max_new_tokens"}
            ),
        )


def requirements() -> list[str]:
    """The dependencies of this package in their installed versions. The code of the package is part of the model."""
    # The part after the plus in `2.13.0+cpu` names a build that the public index does not have.
    return [f"{needed.name}=={metadata.version(needed.name).partition('+')[0]}" for needed in versions.requirements()]
