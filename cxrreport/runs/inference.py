"""Tracked runs of `generate` and `export`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cxrreport.records import Progress
from cxrreport.runs.command import Summary, flat, log_data, silent, tracked
from cxrreport.runs.ingestion import ingest_facts
from cxrreport.settings import ExportSettings, GenerateSettings
from cxrreport.storage.atomic_files import file_sha256
from cxrreport.storage.job_arrays import part_folder

if TYPE_CHECKING:
    from cxrreport.export import ExportSummary
    from cxrreport.inference.generate import GenerateSummary
    from cxrreport.inference.preparation import GenerationInputs
    from cxrreport.model.checkpoints import LoadedModel


def generate(settings: GenerateSettings, *, progress: Progress | None = None) -> Summary[GenerateSummary]:
    """Generate reports for an ingest folder, for a folder of DICOM, or for one DICOM file.

    The folder of an adapter can also be passed as the checkpoint.

    Raises:
        CxrReportError: as `inference.generate.generate`.
    """
    from cxrreport.inference.generate import generate as generate_reports
    from cxrreport.inference.preparation import separate_adapter

    settings = separate_adapter(settings)
    facts: dict[str, Any] = {}
    with tracked("generate", settings) as (run, summarise):

        def log_inputs(inputs: GenerationInputs, loaded: LoadedModel) -> None:
            log_data(run, inputs.manifest, "inference")
            run.dataset("checkpoint", loaded.fingerprint, "model", checkpoint=inputs.checkpoint.name)
            if inputs.adapter_digest is not None:
                run.dataset("adapter", inputs.adapter_digest, "model")
                run.link("cxrreport.model_run", "adapter", inputs.adapter_digest)
            if inputs.ingested is not None:
                ingested = ingest_facts(inputs.ingested)
                facts.update({name: value for name, value in ingested.items() if "split" not in name})

        result = generate_reports(settings, progress or silent, run_id=run.run_id, log_inputs=log_inputs)
        names = ("studies", "predictions", "failed", "unfinished", "abstained", "mean_logprob")
        facts |= {name: getattr(result, name) for name in names}
        facts["studies_per_second"] = (result.studies - result.resumed) / result.seconds if result.seconds else None
        run.metrics(flat(facts))
        folder = part_folder(settings.output, settings.shard)
        run.artifact(folder / "generate.json")
        if settings.shard is None:
            predictions = folder / "predictions.parquet"
            run.dataset("predictions", file_sha256(predictions), "output")
            if settings.tracking.log_reports:
                run.artifact(predictions)
    return summarise(facts, result, (result.warning,) if result.warning else ())


def export(settings: ExportSettings, *, progress: Progress | None = None) -> Summary[ExportSummary]:
    """Export predictions as DICOM Structured Reports and FHIR resources that refer to their images.

    Raises:
        MissingExtraError: highdicom or fhir.resources is not installed.
        CxrReportError: as `export.documents.export`.
    """
    from cxrreport.export import export as export_documents
    from cxrreport.export import read_inputs

    with tracked("export", settings) as (run, summarise):
        inputs = read_inputs(settings)
        log_data(run, inputs.manifest, "export")
        result = export_documents(settings, inputs, progress or silent)
        facts = {"predictions": result.predictions, "exported": result.exported, "refused": dict(result.refused)}
        run.metrics(flat(facts))
        run.artifact(settings.output / "export.json")
    nothing = f"nothing was exported; {settings.output / 'ledger.parquet'} gives the reason for every study"
    return summarise(facts, result, () if result.exported else (nothing,))
