"""The commands that make reports: ingest, train, generate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, get_args

import typer

from cxrreport import runs
from cxrreport.cli.app import app
from cxrreport.cli.options import (
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
    on_data,
    on_decoding,
    on_model,
    on_privacy,
    on_training,
    on_work,
    panel,
    settings_of,
)
from cxrreport.cli.output import guarded, perform, print_summary
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

on_images = panel("Images")
_BASELINES = "|".join(name.replace("_", "-") for name in get_args(GeneratedBaseline))


@app.command()
def ingest(
    config: Config = None,
    source: Annotated[
        Path | None, on_data("--input", "-i", metavar="DIR", help="Folder of studies, a table or a file.")
    ] = None,
    output: Output = None,
    layout: Annotated[Layout | None, on_data(help="How the studies are arranged.", show_default="auto")] = None,
    reports: Annotated[Path | None, on_data(metavar="FILE", help="Table of reports (CSV or Parquet).")] = None,
    require_report: Annotated[
        bool | None,
        on_data(
            "--require-report/--no-require-report", help="Exclude studies without a report.", show_default="require"
        ),
    ] = None,
    priors: Annotated[
        PriorsPolicy | None,
        on_data(help="Reports from which mentions of prior studies are removed.", show_default="training"),
    ] = None,
    resolution: Annotated[int | None, on_images(help="Side length: 224, 448 or 896.", show_default="224")] = None,
    window: Annotated[
        str | None, on_images(help="Index or explanation of the window to use.", show_default="0")
    ] = None,
    keep: Annotated[
        list[str] | None,
        on_images(metavar="REASON", help="Keep images that this reason code would exclude; repeatable."),
    ] = None,
    covariates: Annotated[
        bool | None,
        on_privacy(
            "--covariates/--no-covariates",
            help="Add sex, age band, AP/PA and manufacturer to the manifest.",
            show_default="no",
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
        print_summary(perform(runs.ingest, settings), as_json)


@app.command()
def train(
    config: Config = None,
    data: Ingested = None,
    output: Output = None,
    checkpoint: Checkpoint = None,
    epochs: Annotated[float | None, on_training(help="Passes over the training split.", show_default="3")] = None,
    max_steps: Annotated[int | None, on_training(min=1, help="Optimiser steps; overrides --epochs.")] = None,
    learning_rate: Annotated[float | None, on_training(help="Peak learning rate.", show_default="1e-4")] = None,
    radgraph: Annotated[
        str | None,
        on_training(
            metavar="NAME",
            help="RadGraph model that scores validation reports; none: validate by loss only.",
            show_default="radgraph-xl",
        ),
    ] = None,
    seed: Annotated[int | None, on_training(min=0, help="Random seed.", show_default="0")] = None,
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
        summary = perform(runs.train, settings)
        if runs.first_process():
            print_summary(summary, as_json)


@app.command()
def generate(
    config: Config = None,
    source: Annotated[
        Path | None,
        on_data("--input", "-i", metavar="PATH", help="Output folder of ingest, a folder of DICOM, or one file."),
    ] = None,
    output: Annotated[
        Path | None, on_data("--output", "-o", metavar="DIR", help="Output folder.", show_default="cxrreport-reports")
    ] = None,
    split: Annotated[
        Literal[SplitName, "all"] | None, on_data(help="Split of the ingest folder.", show_default="test")
    ] = None,
    limit: Annotated[int | None, on_data(min=1, help="Process only the first studies.")] = None,
    checkpoint: Checkpoint = None,
    adapter: Adapter = None,
    engine: Annotated[EngineName | None, on_model(help="openvino: on a CPU.", show_default="torch")] = None,
    quantize: Annotated[
        Quantization | None, on_model(help="8-bit weights; requires openvino.", show_default="none")
    ] = None,
    baseline: Annotated[
        str | None,
        on_model(
            metavar=_BASELINES,
            help="Generate a baseline instead: other images, or the model before fine-tuning.",
            show_default="none",
        ),
    ] = None,
    control: Annotated[str | None, typer.Option(hidden=True)] = None,  # former name of --baseline
    prompts: Annotated[
        list[str] | None,
        on_decoding(
            "--prompt", metavar="TEXT", help="Prompt for a mix checkpoint, for example 'detect effusion'; repeatable."
        ),
    ] = None,
    draw_boxes: Annotated[
        bool | None, on_decoding("--draw-boxes", help="Write a PNG for answers with boxes.", show_default="no")
    ] = None,
    beams: Annotated[
        int | None, on_decoding(min=2, help="Use beam search with this many beams.", show_default="greedy")
    ] = None,
    temperature: Annotated[float | None, on_decoding(help="Sample at this temperature.", show_default="greedy")] = None,
    abstain_below: Annotated[
        float | None, on_decoding(max=0, help="Mark texts with a lower mean log-probability.", show_default="none")
    ] = None,
    batch_size: Annotated[int | None, on_work(min=1, help="Texts generated together.", show_default="8")] = None,
    ray: Annotated[str | None, on_work(metavar="ADDRESS", help="Ray cluster; local: this machine.")] = None,
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
        if baseline and control:
            raise SettingsError("--control is the former name of --baseline; give it once")
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
        print_summary(perform(runs.generate, settings), as_json)
