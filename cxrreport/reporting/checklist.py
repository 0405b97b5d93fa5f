"""Items of TRIPOD-LLM, MI-CLEAR-LLM, CLAIM and REFINE by topic, in our words, with what the runs recorded on them.

The guidelines have more items; those that no record can answer (funding, ethics, limitations) are listed as not known.
Sources: TRIPOD-LLM (Gallifant et al. 2025, Nature Medicine), MI-CLEAR-LLM (Park et al. 2024, Korean J Radiol), CLAIM
2024 (Tejani et al., Radiology: AI), REFINE (Mese et al. 2026, Diagn Interv Radiol).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cxrreport.reporting.study import Study

TRIPOD, CLEAR, CLAIM, REFINE = "TRIPOD-LLM", "MI-CLEAR-LLM", "CLAIM", "REFINE"
NOT_KNOWN = "not known"
_LISTED = 5


@dataclass(frozen=True, slots=True)
class Item:
    """One item: its section and name, the guidelines that ask for it, and labels with the places of its values."""

    section: str
    name: str
    guidelines: tuple[str, ...]
    places: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """What is known of an item.

    Args:
        value: text, or `NOT_KNOWN`.
        source: files and keys that it comes from; empty if it is not known.
    """

    section: str
    item: str
    guidelines: tuple[str, ...]
    value: str
    source: str


ITEMS = (
    Item("Study", "objective, clinical need and intended use", (TRIPOD, CLAIM, REFINE)),
    Item("Study", "ethics approval, registration and protocol", (TRIPOD, CLAIM, REFINE)),
    Item("Study", "funding and conflicts of interest", (TRIPOD, CLAIM, REFINE)),
    Item(
        "Data",
        "data sources and their arrangement",
        (TRIPOD, CLAIM, REFINE),
        (("layout", "ingest:layout"), ("digest of the manifest", "ingest:digest")),
    ),
    Item(
        "Data",
        "flow of participants: read, included and excluded with reasons",
        (TRIPOD, CLAIM, REFINE),
        (("images read", "ingest:read"), ("kept", "ingest:kept"), ("excluded", "ingest:left_out")),
    ),
    Item(
        "Data",
        "partitions, and the level at which they are disjoint",
        (TRIPOD, CLAIM, REFINE),
        (
            ("studies", "ingest:studies"),
            ("official split", "ingest:official_split"),
            ("reports in several splits", "ingest:reports_in_several_splits"),
        ),
    ),
    Item("Data", "demographic and clinical characteristics of participants", (TRIPOD, CLAIM, REFINE)),
    Item(
        "Data",
        "preprocessing of images",
        (CLAIM, REFINE),
        (
            ("resolution", "ingest:settings.resolution"),
            ("resize", "ingest:settings.resize"),
            ("interpolation", "ingest:settings.interpolation"),
            ("views", "ingest:settings.views"),
        ),
    ),
    Item(
        "Data",
        "preprocessing of text, and mentions of earlier studies",
        (TRIPOD, CLAIM, REFINE),
        (
            ("mentions of priors", "ingest:settings.priors"),
            ("placeholders", "ingest:settings.placeholders"),
            ("sentences", "ingest:texts"),
        ),
    ),
    Item(
        "Data",
        "de-identification",
        (TRIPOD, CLAIM, REFINE),
        (
            ("identifiers in text", "ingest:settings.texts.deidentify"),
            ("burned-in annotation", "ingest:settings.burned_in"),
            ("version of pseudonyms", "ingest:settings.pseudonym_version"),
        ),
    ),
    Item("Data", "missing data", (TRIPOD, CLAIM), (("reports required", "ingest:settings.require_report"),)),
    Item(
        "Data",
        "reference standard",
        (TRIPOD, CLAIM, REFINE),
        (("sections of the report of routine care", "evaluate:settings.section"),),
    ),
    Item("Data", "annotators, their qualification and agreement", (TRIPOD, CLAIM, REFINE)),
    Item(
        "Model",
        "name, version and provider of the model",
        (TRIPOD, CLEAR, CLAIM, REFINE),
        (
            ("checkpoint", "generate:checkpoint.name"),
            ("revision", "generate:checkpoint.revision"),
            ("SHA-256 of the weights", "generate:inputs.base"),
            ("SHA-256 of the adapter", "generate:inputs.adapter"),
        ),
    ),
    Item("Model", "date until which the base model was trained", (TRIPOD, CLEAR, REFINE)),
    Item(
        "Model",
        "how the model was run, and access to the web",
        (TRIPOD, CLEAR, REFINE),
        (("engine, on this machine without web access", "generate:inputs.engine"), ("dtype", "generate:inputs.dtype")),
    ),
    Item(
        "Model",
        "inputs and outputs",
        (TRIPOD, CLAIM, REFINE),
        (("inputs", "scores:conditions.inputs.model"), ("scored sections", "scores:conditions.section")),
    ),
    Item(
        "Model",
        "software and versions",
        (TRIPOD, CLAIM, REFINE),
        (("generation", "generate:inputs.versions"), ("training", "train:versions")),
    ),
    Item(
        "Training",
        "fine-tuning: method, trained parameters, initial weights",
        (TRIPOD, CLAIM, REFINE),
        (
            ("LoRA", "train:settings.lora"),
            ("trained parameters", "train:trained_parameters"),
            ("initial weights", "train:settings.checkpoint.name"),
        ),
    ),
    Item(
        "Training",
        "hyperparameters and length of training",
        (TRIPOD, CLAIM, REFINE),
        (
            ("learning rate", "train:settings.learning_rate"),
            ("batch", "train:settings.batch_size"),
            ("accumulation", "train:settings.accumulation"),
            ("steps", "train:steps"),
            ("samples", "train:samples"),
            ("seed", "train:settings.seed"),
        ),
    ),
    Item(
        "Training",
        "selection of the final model",
        (CLAIM, REFINE),
        (("step", "train:best_step"), ("on the validation split", "train:validation")),
    ),
    Item(
        "Prompts and decoding",
        "exact prompts, and how they are structured",
        (TRIPOD, CLEAR, REFINE),
        (("prompt", "generate:inputs.prompt"), ("other prompts", "generate:settings.prompts")),
    ),
    Item("Prompts and decoding", "how prompts were tested and chosen", (TRIPOD, CLEAR, REFINE)),
    Item(
        "Prompts and decoding",
        "stochasticity: decoding, number of attempts, seed",
        (TRIPOD, CLEAR, REFINE),
        (
            ("decoding", "generate:settings.decoding"),
            ("samples per study", "generate:settings.samples"),
            ("seed", "generate:settings.seed"),
            ("most new tokens", "generate:settings.max_new_tokens"),
        ),
    ),
    Item(
        "Evaluation",
        "test data, and their independence of training",
        (TRIPOD, CLEAR, CLAIM, REFINE),
        (
            ("splits", "scores:conditions.splits"),
            ("studies", "scores:counts.scored"),
            ("patients", "scores:counts.patients"),
            ("near duplicates of training reports", "ingest:near_duplicate_reports"),
        ),
    ),
    Item("Evaluation", "external test data", (TRIPOD, CLAIM, REFINE)),
    Item(
        "Evaluation",
        "metrics, with their models and rules",
        (TRIPOD, CLAIM, REFINE),
        (("metrics", "scores:conditions.metrics"), ("not computed", "scores:not_computed")),
    ),
    Item("Evaluation", "uncertainty and statistical methods", (TRIPOD, CLAIM), (("", "scores:conditions.intervals"),)),
    Item(
        "Evaluation",
        "missing and failed outputs",
        (TRIPOD, CLAIM, REFINE),
        (
            ("failed studies", "generate:summary.failed"),
            ("texts cut at the limit", "generate:summary.unfinished"),
            ("predictions scored as empty or cut", "scores:counts.failed_predictions.model"),
            ("empty predictions", "scores:counts.empty_predictions.model"),
            ("excluded studies", "scores:counts.excluded_by_reason"),
        ),
    ),
    Item(
        "Results",
        "performance on the test data with intervals",
        (TRIPOD, CLAIM, REFINE),
        (("", "scores:systems.model"),),
    ),
    Item("Results", "comparison with baselines", (TRIPOD, CLAIM, REFINE), (("", "scores:differences"),)),
    Item("Results", "performance in subgroups", (TRIPOD, CLAIM, REFINE), (("subgroups", "scores:subgroups"),)),
    Item("Results", "errors by finding", (TRIPOD, CLAIM, REFINE), (("findings", "scores:findings.model"),)),
    Item("Results", "assessment by readers", (TRIPOD, CLAIM, REFINE)),
    Item(
        "Results",
        "use of resources",
        (TRIPOD, REFINE),
        (
            ("seconds of generation", "generate:summary.seconds"),
            ("peak memory of training, bytes", "train:peak_memory"),
            ("device of evaluation", "scores:conditions.device"),
        ),
    ),
    Item("Discussion", "limitations, bias and generalisability", (TRIPOD, CLAIM, REFINE)),
    Item("Sharing", "availability of code, weights and data", (TRIPOD, CLAIM, REFINE)),
)


def answers(study: Study) -> list[Answer]:
    """The answer to every item, in their order."""
    return [_answer(study, item) for item in ITEMS]


def _answer(study: Study, item: Item) -> Answer:
    parts, sources = [], []
    for label, place in item.places:
        value = study.value(place)
        if value is None or value in ({}, [], ""):
            continue
        command, _, key = place.partition(":")
        parts.append(f"{label}: {_shown(value)}" if label else _shown(value))
        sources.append(f"{study.files[command]}: {key}")
    if not parts:
        return Answer(item.section, item.name, item.guidelines, NOT_KNOWN, "")
    return Answer(item.section, item.name, item.guidelines, "; ".join(parts), "; ".join(sources))


def _shown(value: Any) -> str:
    """A value in a line: intervals as numbers, long lists by their beginning."""
    match value:
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.6g}"
        case Mapping() if {"value", "low", "high"} <= value.keys():
            return _interval(value)
        case Mapping():
            kept = [(key, one) for key, one in value.items() if one is not None]
            listed = [f"{key} {_inner(one)}".strip() for key, one in kept[:_LISTED]]
            return ", ".join(listed) + _rest(kept)
        case Sequence() if not isinstance(value, str):
            return ", ".join(map(_inner, value[:_LISTED])) + _rest(value)
    return " ".join(str(value).split())


def _inner(value: Any) -> str:
    if isinstance(value, Mapping) and not {"value", "low", "high"} <= value.keys():
        first = next(((key, one) for key, one in value.items() if isinstance(one, Mapping) and "value" in one), None)
        if first is not None:
            return f"({first[0]} {_interval(first[1])})"
        groups = [(name, one["scores"]) for name, one in value.items() if isinstance(one, Mapping) and "scores" in one]
        if groups:
            return "(" + ", ".join(f"{name} {_inner(scores)}" for name, scores in groups) + ")"
        return "(" + ", ".join(f"{key} {_plain(one)}" for key, one in value.items() if _plain(one)) + ")"
    return _shown(value)


def _plain(value: Any) -> str:
    return "" if value is None or isinstance(value, (Mapping, list)) else _shown(value)


def _interval(value: Mapping[str, Any]) -> str:
    if value["value"] is None:
        return "undefined"
    if value["low"] is None or value["high"] is None:
        return f"{value['value']:.3f}"
    return f"{value['value']:.3f} ({value['low']:.3f} to {value['high']:.3f})"


def _rest(values: Sequence[Any]) -> str:
    return f" and {len(values) - _LISTED} more" if len(values) > _LISTED else ""
