"""Generation for studies with laterals and prior studies, and the baselines that change the prior study."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from cxrreport.errors import InputError, SettingsError
from cxrreport.inference.baselines import with_other_priors
from cxrreport.inference.preparation import prepare_inputs
from cxrreport.inference.worker import select_studies
from cxrreport.model.checkpoints import LoadedModel
from cxrreport.model.prompt import PromptLayout
from cxrreport.records import PriorStudy, Report, Study, View
from cxrreport.settings import GenerateSettings, PromptSettings

PROMPT = PromptSettings(views="frontal+lateral", prior="report+image", pool=2)


@pytest.fixture
def layout(loaded: LoadedModel) -> PromptLayout:
    return PromptLayout(loaded.tokenizer, PROMPT, loaded.image_tokens)


@pytest.fixture
def studies(make_studies: Any) -> Any:
    """Of twelve studies each has a lateral, and every second one has a prior study: the one before it."""
    made = make_studies(12)
    each: list[Study] = []
    for number, study in enumerate(made._studies):
        lateral = f"{study.image_ids[0]}-lateral"
        made.images[lateral] = replace(made.images[study.image_ids[0]], image_id=lateral, view=View.LATERAL)
        prior = None
        if number % 2:
            before = each[-1]
            prior = PriorStudy(
                study_id=before.study_id,
                days=number,
                image_ids=before.image_ids,
                report=Report(findings=f"Nodule of {number} mm."),
            )
        each.append(replace(study, image_ids=(study.image_ids[0], lateral), prior=prior))
    made._studies = each
    return made


def settings(output: Path, **values: Any) -> GenerateSettings:
    given = {"input": "data", "output": output, "split": None, "batch_size": 3, "shard_size": 5, "max_new_tokens": 6}
    return GenerateSettings.model_validate(given | values)


@pytest.mark.parametrize("baseline", ["none", "no_prior", "shuffled_prior", "shuffled", "blank"])
def test_predictions_say_what_was_shown(
    loaded: LoadedModel, layout: PromptLayout, studies: Any, tmp_path: Path, generate_into: Any, baseline: str
) -> None:
    generate_into(settings(tmp_path / "out", baseline=baseline), studies, loaded, layout)
    rows = pq.read_table(tmp_path / "out/predictions.parquet").to_pylist()
    assert len(rows) == 12
    own = {study.study_id: study for study in studies.studies()}
    for row in rows:
        study = own[row["study_id"]]
        shown = "prior study" in row["prompt"]
        assert shown == (study.prior is not None and baseline != "no_prior") == bool(row["prior_study_id"])
        if baseline == "blank":
            assert row["image_ids"] == [] and len(set(row["image_sha256"])) == 1
            continue
        assert len(row["image_ids"]) == 2 + shown == len(row["image_sha256"])
        current, prior = row["image_ids"][:2], row["image_ids"][2:]
        assert (tuple(current) == study.image_ids) == (baseline != "shuffled")
        if shown:
            other = own[row["prior_study_id"]]
            assert prior == [other.image_ids[0]]
            assert (other.study_id == study.prior.study_id) == (baseline != "shuffled_prior")
            assert other.patient_id != study.patient_id or baseline != "shuffled_prior"
    inputs = json.loads((tmp_path / "out/generate.json").read_text())["inputs"]
    assert inputs["prompt"]["pool"] == 2


def test_a_prior_changes_the_output_of_its_study_alone(
    loaded: LoadedModel, layout: PromptLayout, studies: Any, tmp_path: Path, generate_into: Any
) -> None:
    texts = {}
    for baseline in ("none", "no_prior"):
        generate_into(settings(tmp_path / baseline, baseline=baseline), studies, loaded, layout)
        rows = pq.read_table(tmp_path / baseline / "predictions.parquet").to_pylist()
        texts[baseline] = {row["study_id"]: row["mean_logprob"] for row in rows}
    with_prior = {study.study_id for study in studies.studies() if study.prior is not None}
    for study_id, found in texts["none"].items():
        assert (found == pytest.approx(texts["no_prior"][study_id], rel=1e-4)) == (study_id not in with_prior)


def test_the_prior_of_every_study_is_that_of_another_patient_and_used_once(studies: Any) -> None:
    changed = with_other_priors(studies.studies(), seed=3)
    before = {study.study_id: study.prior for study in studies.studies()}
    used = [study.prior.study_id for study in changed if study.prior is not None]
    assert sorted(used) == sorted(prior.study_id for prior in before.values() if prior is not None)
    assert all((one.prior is None) == (before[one.study_id] is None) for one in changed)
    assert [one.prior for one in changed] != [one.prior for one in with_other_priors(studies.studies(), seed=4)]
    with pytest.raises(InputError, match="no study has a prior study"):
        with_other_priors([replace(study, prior=None) for study in studies.studies()], seed=0)


def test_a_limit_does_not_change_which_prior_a_study_gets(studies: Any, tmp_path: Path) -> None:
    whole, some = (
        {study.study_id: given.prior for study, given in select_studies(made, studies, PROMPT)}
        for made in (settings(tmp_path, baseline="shuffled_prior", limit=n) for n in (None, 5))
    )
    assert len(some) == 5 and some.items() <= whole.items()


def test_baselines_of_the_prior_need_a_prompt_that_shows_one(checkpoint_folder: Path, tmp_path: Path) -> None:
    for baseline in ("no_prior", "shuffled_prior"):
        given = settings(tmp_path / "out", baseline=baseline, checkpoint={"name": str(checkpoint_folder)})
        with pytest.raises(SettingsError, match="shows no prior study"):
            prepare_inputs(given, lambda *_: None)
