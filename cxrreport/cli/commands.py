"""The verbs: ingest, train, generate, evaluate, review."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cxrreport import runs
from cxrreport.cli.app import app
from cxrreport.cli.options import (
    AllowRemote,
    Baseline,
    CheckpointOption,
    Config,
    EngineName,
    Json,
    Layout,
    Output,
    Priors,
    Pseudonymize,
    Quantize,
    Section,
    SplitName,
    Track,
    baselines_of,
    settings_of,
)
from cxrreport.cli.output import guarded, perform, print_summary, progress_bar
from cxrreport.errors import SettingsError
from cxrreport.settings import EvaluateSettings, GenerateSettings, IngestSettings, ReviewSettings, TrainSettings


@app.command()
def ingest(
    config: Config = None,
    source: Annotated[
        Path | None, typer.Option("--input", "-i", metavar="DIR", help="Folder that holds the studies.")
    ] = None,
    output: Output = None,
    layout: Annotated[Layout | None, typer.Option(help="Layout of the studies.", show_default="auto")] = None,
    reports: Annotated[Path | None, typer.Option(metavar="FILE", help="Table of reports (CSV or Parquet).")] = None,
    resolution: Annotated[int | None, typer.Option(help="224, 448 or 896.", show_default="224")] = None,
    require_report: Annotated[
        bool | None,
        typer.Option("--require-report/--no-require-report", help="Leave out studies without.", show_default="require"),
    ] = None,
    keep: Annotated[
        list[str] | None, typer.Option(metavar="REASON", help="Keep what is left out for it; repeatable.")
    ] = None,
    window: Annotated[
        str | None, typer.Option(help="Of several windows, the index or the explanation.", show_default="0")
    ] = None,
    covariates: Annotated[
        bool | None,
        typer.Option("--covariates/--no-covariates", help="Add sex, age band, AP/PA, maker.", show_default="no"),
    ] = None,
    priors: Annotated[
        Priors | None, typer.Option(help="Where mentions of earlier studies are removed.", show_default="training")
    ] = None,
    pseudonymize: Pseudonymize = None,
    allow_remote: AllowRemote = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Worker processes.", show_default="1")] = None,
    shard: Annotated[str | None, typer.Option(metavar="I/N", help="Only the I-th of N parts.")] = None,
    track: Track = None,
    as_json: Json = False,
) -> None:
    """DICOM and reports to a manifest and model-ready images.

    Example: `cxrreport ingest --input mimic-cxr --output data --workers 8`
    """
    with guarded():
        settings = settings_of(
            IngestSettings,
            config,
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
    data: Annotated[Path | None, typer.Option("--input", "-i", metavar="DIR", help="Output folder of ingest.")] = None,
    output: Output = None,
    checkpoint: CheckpointOption = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over the data.", show_default="3")] = None,
    max_steps: Annotated[int | None, typer.Option(min=1, help="Optimiser steps; overrides --epochs.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak rate.", show_default="1e-4")] = None,
    radgraph: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Scores reports while training; `none`: loss only.", show_default="radgraph-xl"
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, show_default="0")] = None,
    track: Track = None,
    as_json: Json = False,
) -> None:
    """Fine-tune with LoRA on the training split; give the same command again to go on after a stop.

    On several GPUs: `torchrun --nproc-per-node 8 -m cxrreport train ...`

    Example: `cxrreport train configs/train-mimic-cxr-3b-896.yaml --output adapter`
    """
    with guarded():
        settings = settings_of(
            TrainSettings,
            config,
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
        typer.Option("--input", "-i", metavar="PATH", help="Output folder of ingest, a folder of DICOM, or one file."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Folder.", show_default="cxrreport-reports"),
    ] = None,
    checkpoint: CheckpointOption = None,
    adapter: Annotated[
        Path | None, typer.Option("--adapter", "-a", metavar="DIR", help="Adapter folder of train.")
    ] = None,
    split: Annotated[SplitName | None, typer.Option(help="Part of the ingest folder.", show_default="test")] = None,
    baseline: Annotated[
        Baseline | None, typer.Option(help="Other images, or the model before.", show_default="none")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first studies.")] = None,
    shard: Annotated[str | None, typer.Option(metavar="I/N", help="Only the I-th of N parts.")] = None,
    prompts: Annotated[
        list[str] | None,
        typer.Option("--prompt", metavar="TEXT", help="Ask a mix checkpoint, e.g. 'detect effusion'; repeatable."),
    ] = None,
    draw_boxes: Annotated[
        bool | None, typer.Option("--draw-boxes", help="A PNG of every answer with boxes.", show_default="none")
    ] = None,
    beams: Annotated[int | None, typer.Option(min=2, help="Beam search, of so many.", show_default="greedy")] = None,
    temperature: Annotated[float | None, typer.Option(help="Sampling, seeded by study.", show_default="greedy")] = None,
    abstain_below: Annotated[
        float | None, typer.Option(max=0, help="Mark texts of a lower mean log-probability.", show_default="none")
    ] = None,
    engine: Annotated[EngineName | None, typer.Option(help="On a CPU: openvino.", show_default="torch")] = None,
    quantize: Annotated[Quantize | None, typer.Option(help="Weights; with openvino.", show_default="none")] = None,
    ray: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Of a Ray cluster; local: this machine.", show_default="none")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Texts at a time.", show_default="8")] = None,
    pseudonymize: Pseudonymize = None,
    track: Track = None,
    as_json: Json = False,
) -> None:
    """Write a report for every study of an ingest folder, or for a folder of DICOM as it comes.

    Example: `cxrreport generate --input dicom --checkpoint tiny --output reports`
    """
    with guarded():
        if beams and temperature:
            raise SettingsError("--beams and --temperature: give one of them")
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
            input=source,
            output=output,
            checkpoint={"name": checkpoint},
            adapter=adapter,
            split=None if split is SplitName.ALL else split,
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
        if split is SplitName.ALL:
            settings = settings.model_copy(update={"split": None})
        perform(runs.generate, settings, as_json)


@app.command()
def evaluate(
    config: Config = None,
    predictions: Annotated[
        Path | None, typer.Option("--predictions", "-p", metavar="PATH", help="Output folder of generate, or a table.")
    ] = None,
    references: Annotated[
        Path | None, typer.Option("--references", "-r", metavar="PATH", help="Output folder of ingest, or a table.")
    ] = None,
    output: Output = None,
    baselines: Annotated[
        list[str] | None,
        typer.Option(
            "--baseline",
            metavar="NAME[=PATH]",
            help="Made here: shuffled, blank, no-adapter, nearest; or predictions of one; repeatable.",
        ),
    ] = None,
    metrics: Annotated[
        list[str] | None,
        typer.Option("--metric", metavar="NAME", help="In the place of the usual ones; repeatable."),
    ] = None,
    radgraph: Annotated[str | None, typer.Option(help="RadGraph model or folder.", show_default="radgraph-xl")] = None,
    section: Annotated[Section | None, typer.Option(help="Scored part.", show_default="findings+impression")] = None,
    allow_remote: AllowRemote = None,
    track: Track = None,
    as_json: Json = False,
) -> None:
    """Score reports: RadGraph F1, BLEU, ROUGE-L, with intervals by patient, beside baselines.

    Example: `cxrreport evaluate -p reports -r data -o scores --baseline shuffled --baseline nearest`
    """
    with guarded():
        settings = settings_of(
            EvaluateSettings,
            config,
            predictions=predictions,
            references=references,
            output=output,
            **baselines_of(baselines or []),
            metrics=metrics or None,
            radgraph=radgraph,
            section=section,
            allow_remote=allow_remote,
            tracking={"enabled": track},
        )
        perform(runs.evaluate, settings, as_json)


@app.command()
def review(
    config: Config = None,
    evaluation: Annotated[
        Path | None, typer.Option("--evaluation", "-e", metavar="DIR", help="Output folder of evaluate.")
    ] = None,
    data: Annotated[Path | None, typer.Option("--input", "-i", metavar="DIR", help="Output folder of ingest.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="The HTML file.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the worst studies.")] = None,
    megabytes: Annotated[
        float | None, typer.Option(help="What the images may take; they are shrunk to it.", show_default="150")
    ] = None,
    log_page: Annotated[
        bool | None, typer.Option("--log-page", help="Keep a copy in MLflow: images and reports.", show_default="no")
    ] = None,
    track: Track = None,
    as_json: Json = False,
) -> None:
    """Write one HTML page with images, generated and reference reports and their entities, worst first.

    Example: `cxrreport review -e scores --input data --output review.html`
    """
    with guarded():
        settings = settings_of(
            ReviewSettings,
            config,
            evaluation=evaluation,
            data=data,
            output=output,
            limit=limit,
            megabytes=megabytes,
            tracking={"enabled": track, "log_reports": log_page},
        )
        perform(runs.review, settings, as_json)
