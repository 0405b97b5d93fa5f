"""Sampled reports and their rewards, as the `sampler` argument of `training.reward.fit`.

The training package does not depend on generation or scoring; this module connects them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cxrreport.dataset import Manifest, model_input
from cxrreport.errors import SettingsError, WeightsError
from cxrreport.evaluation.inputs.tables import choose, cut
from cxrreport.evaluation.metrics import Pairs
from cxrreport.evaluation.radgraph import NO_ENTITIES, Annotation
from cxrreport.evaluation.radgraph.annotator import RadGraphAnnotator
from cxrreport.evaluation.registry import selected_metrics
from cxrreport.inference.decoding import Engine, Generated, Request
from cxrreport.model.checkpoints import LoadedModel
from cxrreport.model.prompt import PromptLayout
from cxrreport.records import Split
from cxrreport.settings import EvaluateSettings, Sampling, TrainSettings
from cxrreport.training.reward import SampledReport

BATCH = 16
"""Reports sampled together; the engine uses fewer if memory is short."""
_NGRAM = 4


class RewardSampler:
    """Samples reports of training studies and scores them against their references.

    Args:
        settings: of the training; `reward` names the metrics and their weights.
        manifest: the ingest folder.

    Raises:
        SettingsError: a metric is unknown, or a weight is for a number that no metric has.
        WeightsError: RadGraph's weights are missing or not usable.
    """

    def __init__(self, settings: TrainSettings, manifest: Manifest) -> None:
        reward = settings.reward
        self._manifest, self._prompt = manifest, settings.prompt
        self._study_of = {image_id: image.study_id for image_id, image in manifest.images.items()}
        self._studies = {study.study_id: study for study in manifest.studies(Split.TRAIN)}
        self._section: Any = "+".join(settings.prompt.sections)
        self._samples = reward.samples
        self._weights = reward.weights
        self._metrics, missing = selected_metrics(
            EvaluateSettings(
                predictions=settings.data,
                references=settings.data,
                output=settings.output,
                baselines={},
                metrics=reward.metrics,
                radgraph=reward.radgraph,
                weights=reward.radgraph_weights,
                download=reward.download,
            ),
            (),
        )
        if missing:
            raise WeightsError("; ".join(f"reward.metrics: {name}: {lacking}" for name, lacking in missing.items()))
        self._annotator: RadGraphAnnotator | None = None
        if any(metric.graphs for metric in self._metrics):
            cache: Path = settings.output.absolute().parent / "annotations.sqlite"
            self._annotator = RadGraphAnnotator.find(
                reward.radgraph, reward.radgraph_weights, cache=cache, download=reward.download
            )
        self._graphs: dict[str, Annotation] = {"": NO_ENTITIES}  # of references
        known = self._numbers(["No effusion."], ["No effusion."], [True])
        if unknown := sorted(self._weights.keys() - known.keys()):
            raise SettingsError(
                f"reward.weights: no metric of reward.metrics has the number {unknown[0]!r}; "
                f"known are {', '.join(sorted(known))}"
            )

    @property
    def conditions(self) -> Mapping[str, Any]:
        """What the rewards depend on, as JSON values."""
        conditions: dict[str, Any] = {"weights": dict(self._weights), "section": self._section}
        if self._annotator is not None:
            conditions |= self._annotator.archive.conditions
        return conditions

    def __call__(
        self, loaded: LoadedModel, layout: PromptLayout, samples: Sequence[tuple[str, bool]], seed: int
    ) -> list[list[SampledReport]]:
        """Sample and score reports of samples: the id of the first image, and whether the prior study is shown."""
        engine = Engine(
            loaded,
            layout,
            batch_size=max(BATCH, self._samples),
            max_new_tokens=layout.settings.max_suffix_tokens,
            decoding=Sampling(),
            seed=seed,
        )
        inputs = [
            model_input(self._studies[study], self._manifest, self._prompt, frontal=first, show_prior=show_prior)
            for first, show_prior in samples
            for study in (self._study_of[first],)
        ]
        requests = [
            Request.of(
                self._study_of[given.image_ids[0]],
                given,
                list(map(self._manifest.image, given.image_ids)),
                sample=sample,
            )
            for given in inputs
            for sample in range(self._samples)
        ]
        generated = engine.generate(requests)
        candidates = [self._text(*layout.parse(one.text)) for one in generated]
        references = [
            self._text(one.report.findings, one.report.impression) for one in inputs for _ in range(self._samples)
        ]
        numbers = self._numbers(candidates, references, [one.finished for one in generated])
        reports = [
            self._scored(one, {name: values[place] for name, values in numbers.items()})
            for place, one in enumerate(generated)
        ]
        return [reports[first : first + self._samples] for first in range(0, len(reports), self._samples)]

    def _scored(self, generated: Generated, numbers: Mapping[str, float]) -> SampledReport:
        # Repetition is always logged, because a run that repeats itself is stopped.
        parts = {name: numbers[name] for name in {**self._weights, "repetition": 0.0}}
        reward = sum(weight * numbers[name] for name, weight in self._weights.items())
        return SampledReport(generated.ids, reward, parts)

    def _text(self, findings: str, impression: str) -> str:
        return cut(choose({"findings": findings, "impression": impression}, self._section))

    def _numbers(
        self, candidates: Sequence[str], references: Sequence[str], finished: Sequence[bool]
    ) -> dict[str, list[float]]:
        """All numbers by name, one value per report."""
        by_name = [{str(place): text for place, text in enumerate(texts)} for texts in (candidates, references)]
        pairs = Pairs(candidates=by_name[0], references=by_name[1])
        if self._annotator is not None:
            new = [text for text in dict.fromkeys(references) if text not in self._graphs]
            self._graphs.update(zip(new, self._annotator.annotate(new), strict=True))
            written = [text for text in dict.fromkeys(candidates) if text not in self._graphs]
            graphs = self._graphs | dict(zip(written, self._annotator.annotate(written), strict=True))
            candidate_graphs, reference_graphs = (
                {name: graphs[text] for name, text in texts.items()} for texts in by_name
            )
            pairs = replace(pairs, candidate_graphs=candidate_graphs, reference_graphs=reference_graphs)
        found: dict[str, list[float]] = {
            "length": [length_ratio(*texts) for texts in zip(candidates, references, strict=True)],
            "repetition": [repetition(text) for text in candidates],
            "unfinished": [float(not ended) for ended in finished],
        }
        for metric in self._metrics:
            for number, measure in metric(pairs).items():
                found[number] = np.nan_to_num(measure.values).tolist()
        return found


def length_ratio(candidate: str, reference: str) -> float:
    """Words of the shorter text over words of the longer one; 0 if either is empty."""
    lengths = len(candidate.split()), len(reference.split())
    return min(lengths) / max(lengths) if all(lengths) else 0.0


def repetition(text: str) -> float:
    """Share of the sequences of four words that occur before in the text; 0 for shorter texts."""
    words = text.lower().split()
    sequences = [tuple(words[place : place + _NGRAM]) for place in range(len(words) - _NGRAM + 1)]
    return 1 - len(set(sequences)) / len(sequences) if sequences else 0.0
