"""The end of `generate`: tables, summary, and what the predictions depend on."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from cxrreport.dataset import Manifest
from cxrreport.errors import InferenceError, InputError
from cxrreport.inference.chat import ChatLayout
from cxrreport.inference.predictions import counted, write_picture, write_tables
from cxrreport.inference.selection import Similarity
from cxrreport.inference.shards import Shards
from cxrreport.model.checkpoints import LoadedModel
from cxrreport.model.prompt import PromptLayout
from cxrreport.records import Exclusion
from cxrreport.settings import GenerateSettings
from cxrreport.storage.job_arrays import remove_parts
from cxrreport.storage.output_folder import OutputFolder
from cxrreport.versions import installed

PHANTOMS_ONLY = (
    "This model has only seen phantoms, which are drawings made by this project. Its reports on real radiographs are "
    "meaningless."
)
"""Warning that accompanies every report of the project's own tiny checkpoint."""

COMMAND = "generate"


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateSummary:
    """Result of `generate`.

    Args:
        studies: studies of the run.
        predictions: generated texts; one per study, or one per study and prompt.
        failed: studies without a text, and files of a folder that could not be read, listed in `failed.parquet`.
        unfinished: texts that reached the limit of new tokens before EOS.
        abstained: texts whose confidence is below the threshold.
        resumed: studies that an earlier run of the same command had finished.
        batch_size: batch size at the end, below the requested one if memory ran out; 0 if several processes had theirs.
        mean_logprob: mean over the predictions of their mean log-probability.
        seconds: wall time of this run, without loading the model.
        warning: warning to be shown with the reports, or `None`.
        new_files: files that were added to a folder of DICOM after it was finished, and are not in the reports.
    """

    studies: int
    predictions: int
    failed: int
    unfinished: int
    abstained: int
    resumed: int
    batch_size: int
    mean_logprob: float
    seconds: float
    warning: str | None
    new_files: int = 0


def check_failures(settings: GenerateSettings, failed: int, where: Path) -> None:
    """Raise an `InferenceError` if more studies than `max_failures` could not be read."""
    if settings.max_failures is not None and failed > settings.max_failures:
        raise InferenceError(
            f"{settings.input}: {failed} studies or files could not be read, more than max_failures: "
            f"{settings.max_failures}; see {where} for the reasons, mend them and re-run the same command to resume"
        )


def finish(
    settings: GenerateSettings,
    shards: Shards,
    loaded: LoadedModel,
    folder: OutputFolder,
    *,
    inputs: Mapping[str, Any],
    provenance: Mapping[str, Any],
    failed: Sequence[Exclusion],
    manifest: Manifest | None,
    resumed: int,
    batch_size: int,
    start: float,
) -> GenerateSummary:
    """Write the tables from the shards, and the summary. `failed` are studies and files that never became an image."""
    counts: dict[str, Any] = {}
    finished = counted(chain(shards.read_all(shards.study_ids), [failed]), counts)
    if settings.shard is None:
        metadata = {"cxrreport.inputs": inputs, "cxrreport.settings": folder.record["settings"]}
        draw = partial(write_picture, manifest, folder.path / "boxes") if settings.draw_boxes and manifest else None
        write_tables(finished, folder.path, metadata, draw)
    else:
        deque(finished, maxlen=0)
    if not counts["predictions"] and counts["failed"] and manifest is not None:
        raise InputError(
            f"{settings.input}: none of the images of {counts['failed']} studies could be read; "
            f"see {folder.path / ('failed.parquet' if settings.shard is None else 'shards')} for the reasons"
        )
    summary = GenerateSummary(
        studies=sum(map(len, shards.study_ids.values())) + len(failed),
        **counts,
        resumed=resumed,
        batch_size=batch_size,
        seconds=round(time.monotonic() - start, 3),
        warning=PHANTOMS_ONLY if loaded.synthetic else None,
    )
    folder.finish(
        summary=asdict(summary),
        inputs=dict(inputs),
        checkpoint={"name": loaded.name, "revision": loaded.revision, "resolution": loaded.resolution},
        baseline=settings.baseline,
        provenance=dict(provenance),
        warning=summary.warning,
    )
    if settings.shard is None:
        remove_parts(settings.output, COMMAND)
    return summary


def recorded_inputs(
    settings: GenerateSettings,
    data: str | None,
    loaded: LoadedModel,
    layout: PromptLayout | ChatLayout,
    provenance: Mapping[str, Any],
    similarity: Similarity | None,
) -> dict[str, Any]:
    """Everything that the texts depend on besides the settings, as JSON values.

    `data` is the digest of a manifest; `None` while a folder is ingested, when each prediction names its images.
    """
    libraries = ["cxrreport", "torch", "transformers", *(["openvino"] * (settings.engine == "openvino"))]
    recorded = {
        "data": data,
        "base": loaded.fingerprint,
        "adapter": provenance.get("adapter"),
        "prompt": layout.settings.model_dump(mode="json"),
        "softcap": loaded.softcap,
        "dtype": str(loaded.dtype).removeprefix("torch."),
        "engine": settings.engine,
        "quantize": settings.quantize,
        "versions": installed(libraries),
    }
    return recorded if similarity is None else recorded | {"consensus": dict(similarity.conditions)}
