"""The commands that make reports, and documents of them: ingest, train, generate, export."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from cxrreport import runs
from cxrreport.cli.app import command
from cxrreport.cli.options import (
    ADAPTER,
    ALLOW_REMOTE,
    BASELINES,
    CHECKPOINT,
    CONFIG,
    GENERATED,
    INGESTED,
    OUTPUT,
    PSEUDONYMIZE,
    SET,
    SHARD,
    TRACK,
    Given,
    Option,
    on_data,
    on_decoding,
    on_images,
    on_model,
    on_privacy,
    on_training,
    on_work,
)
from cxrreport.cli.output import perform, print_summary
from cxrreport.errors import SettingsError
from cxrreport.settings import ExportSettings, GenerateSettings, IngestSettings, SplitName, TrainSettings


@command(
    IngestSettings,
    CONFIG,
    on_data("input", "-i", metavar="DIR", help="Folder of studies, a table or a file."),
    OUTPUT,
    on_data("layout", help="How the studies are arranged."),
    on_data("reports", metavar="FILE", help="Table of reports (CSV, Excel or Parquet)."),
    on_data(
        "columns.study_id", "--id-column", kind=str, metavar="NAME", help="Its column of UIDs or accession numbers."
    ),
    on_data("columns.report", "--report-column", kind=str, metavar="NAME", help="Its column of whole reports."),
    on_data("columns.findings", "--findings-column", kind=str, metavar="NAME", help="Its column of findings."),
    on_data("columns.impression", "--impression-column", kind=str, metavar="NAME", help="Its column of impressions."),
    on_data("sheet", metavar="NAME", help="Its sheet, if several of a workbook have data."),
    on_data("require_report", "--require-report/--no-require-report", help="Exclude studies without a report."),
    on_data("priors", help="Reports from which mentions of prior studies are removed."),
    on_images("resolution", help="Side length: 224, 448 or 896."),
    on_images("window", kind=str, min=None, help="Index or explanation of the window to use."),
    on_images("keep", metavar="REASON", help="Keep images that this reason code would exclude; repeatable."),
    on_privacy(
        "covariates",
        "--covariates/--no-covariates",
        help="Add sex, age band, AP/PA and manufacturer to the manifest.",
    ),
    PSEUDONYMIZE,
    ALLOW_REMOTE,
    on_work("workers", help="Worker processes."),
    SHARD,
    TRACK,
    SET,
)
def ingest(given: Given[IngestSettings]) -> None:
    """Convert DICOM studies and reports into a manifest and model-ready images.

    Example: `cxrreport ingest --input mimic-cxr --output data --workers 8`
    """
    if (window := given.options.get("window", "")).isdigit():
        given.options["window"] = int(window)
    print_summary(perform(runs.ingest, given.settings()), given.as_json)


@command(
    TrainSettings,
    CONFIG,
    INGESTED,
    OUTPUT,
    CHECKPOINT,
    on_training("epochs", help="Passes over the training split."),
    on_training("max_steps", help="Optimiser steps; overrides --epochs."),
    on_training("learning_rate", help="Peak learning rate."),
    on_training(
        "validation.radgraph",
        "--radgraph",
        metavar="NAME",
        help="RadGraph model that scores validation reports; none: validate by loss only.",
    ),
    on_training("objective", help="likelihood of the reference reports, or reward of sampled ones."),
    on_training("reward.adapter", "--start", metavar="DIR", help="Adapter that training on the metric starts from."),
    on_training("seed", help="Random seed."),
    TRACK,
    SET,
)
def train(given: Given[TrainSettings]) -> None:
    """Fine-tune with LoRA on the training split. Re-run the same command to resume.

    On several GPUs: `torchrun --nproc-per-node 8 -m cxrreport train ...`

    Example: `cxrreport train configs/train-mimic-cxr-3b-896.yaml --output adapter`
    """
    summary = perform(runs.train, given.settings())
    if runs.first_process():
        print_summary(summary, given.as_json)


@command(
    GenerateSettings,
    CONFIG,
    on_data("input", "-i", metavar="PATH", help="Output folder of ingest, a folder of DICOM, or one file."),
    on_data("output", "-o", metavar="DIR", help="Output folder.", show_default="cxrreport-reports"),
    on_data("split", kind=Literal[SplitName, "all"], help="Split of the ingest folder."),
    on_data("limit", help="Process only the first studies."),
    CHECKPOINT,
    ADAPTER,
    on_model("engine", help="openvino: on a CPU; transformers: another model."),
    on_model("prompt_template", metavar="FILE", help="Prompt file of another model."),
    on_model("quantize", help="8-bit weights; requires openvino."),
    on_model(
        "baseline",
        kind=str,
        metavar="|".join(BASELINES),
        help="Generate a baseline instead: other images, or the model before fine-tuning.",
    ),
    Option("control", kind=str, hidden=True),  # former name of --baseline
    on_decoding(
        "prompts",
        "--prompt",
        metavar="TEXT",
        help="Prompt for a mix checkpoint, for example 'detect effusion'; repeatable.",
    ),
    on_decoding("draw_boxes", help="Write a PNG for answers with boxes."),
    on_decoding("beams", kind=int, min=2, help="Use beam search with this many beams.", show_default="greedy"),
    on_decoding("temperature", kind=float, help="Sample at this temperature.", show_default="greedy"),
    on_decoding("samples", help="Reports sampled for each study, of which one is kept."),
    on_decoding("select", help="The sample that is kept."),
    on_decoding("consensus.measure", "--agreement", help="Agreement of samples."),
    on_decoding("consensus.radgraph", "--radgraph", metavar="NAME|DIR", help="RadGraph model for the consensus."),
    on_decoding("abstain_below", help="Mark texts with a lower confidence.", show_default="none"),
    on_decoding("abstain_by", help="That confidence."),
    on_work("batch_size", kind=str, min=None, metavar="N|auto", help="Texts generated together."),
    on_work("workers", help="Processes that read a folder of DICOM."),
    on_work("update", "--update", help="Take in new files of a folder of DICOM that was finished."),
    on_work("max_failures", help="Stop when more studies than this cannot be read.", show_default="none"),
    on_work("tracking.traces", "--traces", help="Log a trace for each report, without its text."),
    on_work("ray.address", "--ray", metavar="ADDRESS", help="Ray cluster; local: this machine."),
    PSEUDONYMIZE,
    SHARD,
    TRACK,
    SET,
)
def generate(given: Given[GenerateSettings]) -> None:
    """Generate a report for every study of an ingest folder or a folder of DICOM. Re-run the same command to resume.

    Example: `cxrreport generate --input dicom --checkpoint tiny --output reports`
    """
    options = given.options
    beams, temperature, control = (options.pop(name, None) for name in ("beams", "temperature", "control"))
    if beams and temperature:
        raise SettingsError("--beams and --temperature: give one of them")
    if control and "baseline" in options:
        raise SettingsError("--control is the former name of --baseline; give it once")
    if baseline := options.get("baseline", control):
        options["baseline"] = baseline.replace("-", "_")
    if options.get("split") == "all":
        del options["split"]
        options["assignments"] = ["split=null", *options.get("assignments", ())]
    if "config" not in options:
        options.setdefault("output", Path("cxrreport-reports"))
    decoding = {"method": "beam", "beams": beams} if beams else {}
    if temperature:
        decoding = {"method": "sample", "temperature": temperature}
    print_summary(perform(runs.generate, given.settings(decoding=decoding)), given.as_json)


@command(
    ExportSettings,
    CONFIG,
    GENERATED,
    OUTPUT,
    on_data(
        "formats",
        "--format",
        metavar="sr|sc|fhir|imr|rexrank",
        help="Document format; repeatable.",
        show_default="sr, fhir",
    ),
    on_data("data", "--input", "-i", metavar="DIR", help="Output folder of ingest.", show_default="that of generate"),
    on_data("sources", metavar="DIR", help="Folder of the DICOM files.", show_default="as ingested"),
    on_data("language", metavar="TAG", help="Language of the reports."),
    TRACK,
    SET,
)
def export(given: Given[ExportSettings]) -> None:
    """Write reports as DICOM Structured Reports and FHIR resources that refer to their images.

    Example: `cxrreport export --predictions reports --output documents`
    """
    print_summary(perform(runs.export, given.settings()), given.as_json)
