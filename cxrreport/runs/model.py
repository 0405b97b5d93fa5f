"""An adapter and its checkpoint as one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from cxrreport.records import Progress
from cxrreport.runs.command import Summary, flat, phantoms, silent, tracked
from cxrreport.settings import MergeSettings
from cxrreport.storage.files import output_folder


def merge(settings: MergeSettings, *, progress: Progress | None = None) -> Summary[Path]:
    """An adapter merged into its checkpoint, as a folder that plain transformers loads. Its result is that folder.

    Raises:
        WeightsError: the adapter is not there, damaged, or a pickle; the checkpoint cannot be had.
        MismatchError: the adapter belongs to another checkpoint.
        OutputError: the folder is in use or holds something else, or the disk is full.
    """
    from cxrreport.model import adapters, checkpoints
    from cxrreport.model.checkpoint_writer import write_checkpoint

    report = progress or silent
    with (
        tracked("merge", settings) as (run, summarise),
        output_folder(settings.output, verb="merge", settings=settings.model_dump(mode="json")) as folder,
    ):
        card = adapters.AdapterCard.read(settings.adapter)
        checkpoint = settings.checkpoint or card.checkpoint
        if checkpoint.precision == "nf4":  # what is merged is whole again
            checkpoint = checkpoint.model_copy(update={"precision": "bfloat16"})
        adapter = checkpoints.fingerprint(settings.adapter)
        run.dataset("adapter", adapter, "model")
        if not folder.finished:
            report(0, 2, "merging")
            loaded = adapters.load(settings.adapter, checkpoints.load(checkpoint, resolution=card.resolution))
            merged = replace(loaded, model=loaded.model.merge_and_unload())
            report(1, 2, "merging")
            card = card.model_copy(update={"merged": True})
            base = checkpoints.locate(checkpoint)
            write_checkpoint(settings.output, merged, card, base=base, shard_bytes=int(settings.shard_gb * 1e9))
            folder.finish(adapter=adapter, fingerprint=checkpoints.fingerprint(settings.output))
        run.dataset("checkpoint", folder.record["fingerprint"], "output")
        run.artifact(settings.output / "merge.json")
        report(2, 2, "merging")
        files = sorted(settings.output.glob("*.safetensors"))
        facts = {"files": len(files), "gigabytes": sum(file.stat().st_size for file in files) / 1e9}
        run.metrics(flat(facts))
    return summarise(facts, settings.output, phantoms(card.synthetic))
