"""`merge` as an MLflow run."""

from __future__ import annotations

from pathlib import Path

from cxrreport.records import Progress
from cxrreport.runs.command import Summary, flat, phantoms, silent, tracked
from cxrreport.settings import MergeSettings


def merge(settings: MergeSettings, *, progress: Progress | None = None) -> Summary[Path]:
    """Merge an adapter into its checkpoint, as a folder that plain transformers loads; the result is that folder.

    Raises:
        WeightsError, MismatchError, OutputError: as `model.merging.merge`.
    """
    from cxrreport.model import merging

    with tracked("merge", settings) as (run, summarise):
        merged = merging.merge(settings, progress or silent)
        run.dataset("adapter", merged.adapter, "model")
        run.dataset("checkpoint", merged.fingerprint, "output")
        run.artifact(settings.output / "merge.json")
        facts = {"files": merged.files, "gigabytes": merged.gigabytes}
        run.metrics(flat(facts))
    return summarise(facts, settings.output, phantoms(merged.synthetic))
