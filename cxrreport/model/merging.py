"""Merging of an adapter into its checkpoint, as a checkpoint that plain transformers loads."""

from __future__ import annotations

from dataclasses import dataclass

from cxrreport.model import adapters, checkpoints
from cxrreport.model.card import AdapterCard
from cxrreport.model.checkpoints.writer import write_checkpoint
from cxrreport.records import Progress
from cxrreport.settings import MergeSettings
from cxrreport.storage.output_folder import output_folder


@dataclass(frozen=True, slots=True, kw_only=True)
class MergedCheckpoint:
    """A merged checkpoint on disk.

    Args:
        adapter: fingerprint of the adapter.
        fingerprint: of the merged weights.
        files: number of weight files.
        gigabytes: their size, GB (10^9 bytes).
        synthetic: it has seen only phantoms.
    """

    adapter: str
    fingerprint: str
    files: int
    gigabytes: float
    synthetic: bool


def merge(settings: MergeSettings, progress: Progress) -> MergedCheckpoint:
    """Merge an adapter into its checkpoint and write the result into `settings.output`.

    Raises:
        WeightsError: the adapter is missing, damaged, or a pickle; the checkpoint cannot be fetched.
        MismatchError: the adapter belongs to another checkpoint.
        OutputError: the folder is in use or holds something else, or the disk is full.
    """
    record = settings.model_dump(mode="json")
    with output_folder(settings.output, command="merge", settings=record) as folder:
        card = AdapterCard.read(settings.adapter)
        checkpoint = settings.checkpoint or card.checkpoint
        if checkpoint.precision == "nf4":  # merged weights are not quantised
            checkpoint = checkpoint.model_copy(update={"precision": "bfloat16"})
        adapter = checkpoints.fingerprint(settings.adapter)
        if not folder.finished:
            progress(0, 2, "merging")
            loaded = adapters.load(settings.adapter, checkpoints.load(checkpoint, resolution=card.resolution))
            merged = adapters.merged(loaded)
            progress(1, 2, "merging")
            card = card.model_copy(update={"merged": True})
            base = checkpoints.locate(checkpoint)
            write_checkpoint(settings.output, merged, card, base=base, shard_bytes=int(settings.shard_gb * 1e9))
            folder.finish(adapter=adapter, fingerprint=checkpoints.fingerprint(settings.output))
        progress(2, 2, "merging")
    sizes = [file.stat().st_size for file in settings.output.glob("*.safetensors")]
    return MergedCheckpoint(
        adapter=adapter,
        fingerprint=folder.record["fingerprint"],
        files=len(sizes),
        gigabytes=sum(sizes) / 1e9,
        synthetic=card.synthetic,
    )
