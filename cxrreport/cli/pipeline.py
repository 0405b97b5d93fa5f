"""The commands that make reports: ingest, train, generate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, get_args

import typer

from cxrreport import runs
from cxrreport.cli.app import app
from cxrreport.cli.options import (
    DATA,
    DECODING,
    MODEL,
    PRIVACY,
    TRAINING,
    WORK,
    Adapter,
    AllowRemote,
    Assignments,
    Checkpoint,
    Config,
    Ingested,
    Json,
    Output,
    Part,
    Pseudonymize,
    Track,
    Workers,
    settings_of,
)
from cxrreport.cli.output import guarded, perform, print_summary, progress_bar
from cxrreport.errors import SettingsError
from cxrreport.settings import (
    EngineName,
    GeneratedBaseline,
    GenerateSettings,
    IngestSettings,
    Layout,
    PriorsPolicy,
    Quantization,
    SplitName,
    TrainSettings,
)

_BASELINES = "|".join(name.replace("_", "-") for name in get_args(GeneratedBaseline))


@app.command()
def ingest(
    config: Config = None,
    source: Annotated[
        Path | None,
        typer.Option(
            "--input", "-i", metavar="DIR", help="Folder of studies, a table or a file.", rich_help_panel=DATA
        ),
    ] = None,
    output: Output = None,
    layout: Annotated[
        Layout | None, typer.Option(help="How the studies are arranged.", show_default="auto", rich_help_panel=DATA)
    ] = None,
    reports: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Table of reports (CSV or Parquet).", rich_help_panel=DATA)
    ] = None,
    require_report: Annotated[
        bool | None,
        typer.Option(
            "--require-report/--no-require-report",
            help="Exclude studies without a report.",
            show_default="require",
            rich_help_panel=DATA,
        ),
    ] = None,
    priors: Annotated[
        PriorsPolicy | None,
        typer.Option(
            help="Reports from which mentions of prior studies are removed.",
            show_default="training",
            rich_help_panel=DATA,
        ),
    ] = None,
    resolution: Annotated[
        int | None, typer.Option(help="Side length: 224, 448 or 896.", show_default="224", rich_help_panel="Images")
    ] = None,
    window: Annotated[
        str | None,
        typer.Option(help="Index or explanation of the window to use.", show_default="0", rich_help_panel="Images"),
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(
            metavar="REASON",
            help="Keep images that this reason code would exclude; repeatable.",
            rich_help_panel="Images",
        ),
    ] = None,
    covariates: Annotated[
        bool | None,
        typer.Option(
            "--covariates/--no-covariates",
            help="Add sex, age band, AP/PA and manufacturer to the manifest.",
            show_default="no",
            rich_help_panel=PRIVACY,
        ),
    ] = None,
    pseudonymize: Pseudonymize = None,
    allow_remote: AllowRemote = None,
    workers: Workers = None,
    shard: Part = None,
    track: Track = None,
    assignments: Assignments = None,
    as_json: Json = False,
) -> None:
    """Convert DICOM studies and reports into a manifest and model-ready images.

    Example: `cxrreport ingest --input mimic-cxr --output data --workers 8`
    """
    with guarded():
        settings = settings_of(
            IngestSettings,
            config,
            assignments,
            input=source,
            output=output,
            layout=layout,
            reports=reports,
            resolution=resolution,
            require_report=require_report,
            keep=keep or None,
            window=int(window) if window and window.isdigit() else window,
            covariates=covariates,
            priors=priors,
            pseudonymize=pseudonymize,
            allow_remote=allow_remote,
            workers=workers,
            shard=shard,
            tracking={"enabled": track},
        )
        perform(runs.ingest, settings, as_json)


@app.command()
def train(
    config: Config = None,
    data: Ingested = None,
    output: Output = None,
    checkpoint: Checkpoint = None,
    epochs: Annotated[
        float | None, typer.Option(help="Passes over the training split.", show_default="3", rich_help_panel=TRAINING)
    ] = None,
    max_steps: Annotated[
        int | None, typer.Option(min=1, help="Optimiser steps; overrides --epochs.", rich_help_panel=TRAINING)
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Peak learning rate.", show_default="1e-4", rich_help_panel=TRAINING)
    ] = None,
    radgraph: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="RadGraph model that scores validation reports; none: validate by loss only.",
            show_default="radgraph-xl",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Random seed.", show_default="0", rich_help_panel=TRAINING)
    ] = None,
    track: Track = None,
    assignments: Assignments = None,
    as_json: Json = False,
) -> None:
    """Fine-tune with LoRA on the training split. Re-run the same command to resume.

    On several GPUs: `torchrun --nproc-per-node 8 -m cxrreport train ...`

    Example: `cxrreport train configs/train-mimic-cxr-3b-896.yaml --output adapter`
    """
    with guarded():
        settings = settings_of(
            TrainSettings,
            config,
            assignments,
            data=data,
            output=output,
            checkpoint={"name": checkpoint},
            epochs=epochs,
            max_steps=max_steps,
            learning_rate=learning_rate,
            validation={"radgraph": radgraph},
            seed=seed,
            tracking={"enabled": track},
        )
        with progress_bar() as progress:
            summary = runs.train(settings, progress=progress)
        if runs.first_process():
            print_summary(summary, as_json)


@app.command()
def generate(
    config: Config = None,
    source: Annotated[
        Path | None,
        typer.Option(
            "--input",
            "-i",
            metavar="PATH",
            help="Output folder of ingest, a folder of DICOM, or one file.",
            rich_help_panel=DATA,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            help="Output folder.",
            show_default="cxrreport-reports",
            rich_help_panel=DATA,
        ),
    ] = None,
    split: Annotated[
        Literal[SplitName, "all"] | None,
        typer.Option(help="Split of the ingest folder.", show_default="test", rich_help_panel=DATA),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Process only the first studies.", rich_help_panel=DATA)
    ] = None,
    checkpoint: Checkpoint = None,
    adapter: Adapter = None,
    engine: Annotated[
        EngineName | None, typer.Option(help="openvino: on a CPU.", show_default="torch", rich_help_panel=MODEL)
    ] = None,
    quantize: Annotated[
        Quantization | None,
        typer.Option(help="8-bit weights; requires openvino.", show_default="none", rich_help_panel=MODEL),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            metavar=_BASELINES,
            help="Generate a baseline instead: other images, or the model before fine-tuning.",
            show_default="none",
            rich_help_panel=MODEL,
        ),
    ] = None,
    control: Annotated[str | None, typer.Option(hidden=True)] = None,  # former name of --baseline
    prompts: Annotated[
        list[str] | None,
        typer.Option(
            "--prompt",
            metavar="TEXT",
            help="Prompt for a mix checkpoint, for example 'detect effusion'; repeatable.",
            rich_help_panel=DECODING,
        ),
    ] = None,
    draw_boxes: Annotated[
        bool | None,
        typer.Option(
            "--draw-boxes", help="Write a PNG for answers with boxes.", show_default="no", rich_help_panel=DECODING
        ),
    ] = None,
    beams: Annotated[
        int | None,
        typer.Option(
            min=2, help="Use beam search with this many beams.", show_default="greedy", rich_help_panel=DECODING
        ),
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(help="Sample at this temperature.", show_default="greedy", rich_help_panel=DECODING),
    ] = None,
    abstain_below: Annotated[
        float | None,
        typer.Option(
            max=0,
            help="Mark texts with a lower mean log-probability.",
            show_default="none",
            rich_help_panel=DECODING,
        ),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Texts generated together.", show_default="8", rich_help_panel=WORK)
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Ray cluster; local: this machine.", rich_help_panel=WORK),
    ] = None,
    pseudonymize: Pseudonymize = None,
    shard: Part = None,
    track: Track = None,
    assignments: Assignments = None,
    as_json: Json = False,
) -> None:
    """Generate a report for every study of an ingest folder or a folder of DICOM. Re-run the same command to resume.

    Example: `cxrreport generate --input dicom --checkpoint tiny --output reports`
    """
    with guarded():
        if beams and temperature:
            raise SettingsError("--beams and --temperature: give one of them")
        baseline = baseline or control
        decoding: dict[str, object] = {}
        if beams:
            decoding = {"method": "beam", "beams": beams}
        elif temperature:
            decoding = {"method": "sample", "temperature": temperature}
        if output is None and config is None:
            output = Path("cxrreport-reports")
        settings = settings_of(
            GenerateSettings,
            config,
            [*(["split=null"] if split == "all" else []), *(assignments or [])],
            input=source,
            output=output,
            checkpoint={"name": checkpoint},
            adapter=adapter,
            split=None if split == "all" else split,
            baseline=baseline and baseline.replace("-", "_"),
            limit=limit,
            shard=shard,
            prompts=prompts or None,
            draw_boxes=draw_boxes,
            decoding=decoding,
            abstain_below=abstain_below,
            engine=engine,
            quantize=quantize,
            ray={"address": ray},
            batch_size=batch_size,
            pseudonymize=pseudonymize,
            tracking={"enabled": track},
        )
        perform(runs.generate, settings, as_json)
