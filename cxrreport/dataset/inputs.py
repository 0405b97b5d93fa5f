"""What a model reads of a study: which images, in which order, and what of the prior study."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from cxrreport.dataset.manifest import Manifest
from cxrreport.records import PriorStudy, Report, Study
from cxrreport.settings import PromptSettings


class ImageRole(StrEnum):
    """What an image is to the study that is reported."""

    FRONTAL = "frontal"
    LATERAL = "lateral"
    PRIOR = "prior"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInput:
    """The inputs of one report, and the report.

    Args:
        image_ids: in the order in which the model reads them: the current study first, frontal first.
        roles: of each image.
        report: as it is to be written: with mentions of earlier studies exactly if the prior study is shown.
        prior: the study that is shown by its image, its report or both; its report is empty if it is not shown.
    """

    image_ids: tuple[str, ...]
    roles: tuple[ImageRole, ...]
    report: Report
    prior: PriorStudy | None = None


def model_input(
    study: Study, manifest: Manifest, prompt: PromptSettings, *, frontal: str | None = None, show_prior: bool = True
) -> ModelInput:
    """Choose what the model reads of a study.

    Args:
        study: of the manifest.
        manifest: has the views of the images.
        prompt: `max_images`, `views` and `prior` decide.
        frontal: the image of the sample instead of the study's best one, for prompts of one image of the study.
        show_prior: False to hide the prior study, as for a patient without one.
    """
    if not prompt.several_inputs:
        ids = (frontal,) if frontal is not None and prompt.max_images == 1 else study.image_ids[: prompt.max_images]
        return ModelInput(image_ids=ids, roles=(ImageRole.FRONTAL,) * len(ids), report=study.report)
    images = manifest.images
    shown = [(frontal or study.image_ids[0], ImageRole.FRONTAL)]
    if prompt.views == "frontal+lateral":
        laterals = (one for one in study.image_ids if one != shown[0][0] and not images[one].view.frontal)
        shown += [(one, ImageRole.LATERAL) for one in laterals][:1]
    prior = study.prior if show_prior and prompt.prior != "none" else None
    if prior is not None and prompt.shows_prior_image:
        frontals = (one for one in prior.image_ids if images[one].view.frontal)
        shown += [(one, ImageRole.PRIOR) for one in frontals][:1]
    if prior is not None and prompt.prior == "image":
        has_image = shown[-1][1] is ImageRole.PRIOR
        prior = PriorStudy(study_id=prior.study_id, days=prior.days, image_ids=prior.image_ids) if has_image else None
    elif prior is not None and shown[-1][1] is not ImageRole.PRIOR:
        # Without text there is nothing of it to show.
        prior = prior if any(getattr(prior.report, section) for section in prompt.sections) else None
    written = study.report if prior is None else study.report_with_mentions or study.report
    return ModelInput(
        image_ids=tuple(image_id for image_id, _ in shown),
        roles=tuple(role for _, role in shown),
        report=written,
        prior=prior,
    )


def samples_of(study: Study, manifest: Manifest, prompt: PromptSettings) -> Iterator[ModelInput]:
    """The training samples of a study: one, for prompts of several images of a study; otherwise one for each image.

    With `views: frontal+lateral` or a prior study, one for each frontal image, or for the best image if none is.
    """
    if prompt.max_images > 1:
        yield model_input(study, manifest, prompt)
        return
    ids = study.image_ids
    if prompt.several_inputs:
        ids = tuple(one for one in ids if manifest.images[one].view.frontal) or ids[:1]
    for image_id in ids:
        yield model_input(study, manifest, prompt, frontal=image_id)
