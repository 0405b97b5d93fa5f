"""RadGraph F1 of reports that are generated during training, as the `validate` argument of `training.finetune.train`.

The training package does not depend on generation or scoring; this module connects them.
"""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from cxrreport.dataset import Manifest, model_input
from cxrreport.errors import WeightsError
from cxrreport.evaluation.inputs.tables import choose, too_long
from cxrreport.evaluation.radgraph import Level, agreement
from cxrreport.evaluation.radgraph.annotator import RadGraphAnnotator
from cxrreport.inference.decoding import Engine, Request
from cxrreport.model.checkpoints import LoadedModel
from cxrreport.model.prompt import PromptLayout
from cxrreport.records import Progress, Report, Split, Study
from cxrreport.settings import TrainSettings
from cxrreport.training.best_checkpoint import SCORE
from cxrreport.training.distributed import ProcessGroup

BATCH = 8
"""Studies generated together; the engine uses fewer if memory is short."""
_AT_ONCE = 8 * BATCH
LEVEL = Level.PARTIAL
"""Level of the headline score of `evaluate`."""


class ReportValidation:
    """Generates and scores reports for a fixed set of validation studies.

    Args:
        settings: of the training; `validation.radgraph` is not `none`.
        manifest: the ingest folder.
        first: this process scores; the others of a training by several only generate.
        progress: called with completed and total studies.

    Raises:
        WeightsError: RadGraph's weights are missing or not usable.
    """

    def __init__(self, settings: TrainSettings, manifest: Manifest, *, first: bool, progress: Progress) -> None:
        self._manifest, self._prompt = manifest, settings.prompt
        self._progress = progress
        self._most_tokens = settings.prompt.max_suffix_tokens
        self._section: Any = "+".join(settings.prompt.sections)
        wanted = settings.validation
        self.studies = fixed_subset(
            [study for study in manifest.studies(Split.VALIDATE) if self._scorable(study.report)], wanted.studies
        )
        self.conditions: Mapping[str, Any] = {}
        if not first:
            return
        try:
            cache = settings.output.absolute().parent / "annotations.sqlite"
            self._annotator = RadGraphAnnotator.find(
                wanted.radgraph, wanted.weights, cache=cache, download=wanted.download
            )
        except WeightsError as error:
            raise WeightsError(
                f"validation.radgraph: {error}. To validate by the loss alone, set validation.radgraph to none"
            ) from error
        self.conditions = self._annotator.archive.conditions | {
            "synthetic": self._annotator.archive.synthetic,
            "level": LEVEL.value,
            "case": "lower-cased",
            "section": self._section,
            "studies": len(self.studies),
            "cohort": hashlib.sha256("\n".join(study.study_id for study in self.studies).encode()).hexdigest(),
            "data": manifest.digest,
        }

    def _text(self, findings: str, impression: str) -> str:
        return choose({"findings": findings, "impression": impression}, self._section)

    def _scorable(self, report: Report) -> bool:
        text = self._text(report.findings, report.impression)
        return bool(text) and not too_long(text)

    def __call__(self, loaded: LoadedModel, layout: PromptLayout, processes: ProcessGroup) -> dict[str, float]:
        """Mean F1 over the studies; a report that is empty, or too long for RadGraph, counts as 0."""
        texts = processes.distribute(partial(self._write, loaded, layout), self.studies)
        return processes.on_first(lambda: {SCORE: self._score(texts)})

    def _write(self, loaded: LoadedModel, layout: PromptLayout, studies: Sequence[Study]) -> list[str]:
        engine = Engine(loaded, layout, batch_size=BATCH, max_new_tokens=self._most_tokens)
        texts: list[str] = []
        for start in range(0, len(studies), _AT_ONCE):
            some = studies[start : start + _AT_ONCE]
            inputs = [(study.study_id, model_input(study, self._manifest, self._prompt)) for study in some]
            requests = [Request.of(name, one, list(map(self._manifest.image, one.image_ids))) for name, one in inputs]

            def tell(done: int, before: int = start) -> None:
                self._progress(before + done, len(studies), "validation reports")

            texts += [self._text(*layout.parse(one.text)) for one in engine.generate(requests, tell)]
        return texts

    def _score(self, texts: Sequence[str]) -> float:
        reports = [model_input(study, self._manifest, self._prompt).report for study in self.studies]
        references = [self._text(report.findings, report.impression) for report in reports]
        candidates = ["" if too_long(text) else text for text in texts]
        written = [text for text in candidates if text]
        graphs = dict(zip(written, self._annotator.annotate(written), strict=True))
        wanted = self._annotator.annotate(references)
        return statistics.fmean(
            agreement(graphs[text], graph, LEVEL, lower_case=True).f1 if text else 0.0
            for text, graph in zip(candidates, wanted, strict=True)
        )


def fixed_subset(studies: Sequence[Study], count: int) -> list[Study]:
    """`count` of the studies, by a hash of their ids: the same in every run, and most of them when the data grow."""
    return sorted(studies, key=lambda study: hashlib.sha256(study.study_id.encode()).digest())[:count]
