"""The command that estimates what a training run needs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cxrreport import runs
from cxrreport.cli.app import app
from cxrreport.cli.options import Json, on_model, on_training, panel, settings_of
from cxrreport.cli.output import guarded, print_json, stdout, table_of
from cxrreport.settings import Method, PlanSettings, TrainSettings

on_gpu = panel("GPU and cost")


@app.command()
def plan(
    what: Annotated[
        str | None,
        typer.Argument(metavar="CHECKPOINT|YAML", help="Checkpoint or training settings; default: all nine sizes."),
    ] = None,
    resolution: Annotated[
        int | None, on_model(help="Side length: 224, 448 or 896.", show_default="the checkpoint's")
    ] = None,
    method: Annotated[Method | None, on_training(help="What is trained.", show_default="lora")] = None,
    batch_size: Annotated[int | None, on_training(min=1, help="Examples per pass.", show_default="1")] = None,
    checkpointing: Annotated[
        bool | None,
        on_training("--checkpointing/--no-checkpointing", help="Gradient checkpointing.", show_default="on"),
    ] = None,
    examples: Annotated[int | None, on_training(min=1, help="Examples per epoch.", show_default="210000")] = None,
    gpu: Annotated[str | None, on_gpu(metavar="NAME", help="GPU, for example H100.", show_default="all")] = None,
    price: Annotated[
        float | None, on_gpu(min=0, help="US dollars per GPU hour.", show_default="built-in table")
    ] = None,
    utilisation: Annotated[
        float | None, on_gpu(help="Fraction of the GPU's peak that is reached.", show_default="0.4")
    ] = None,
    as_json: Json = False,
) -> None:
    """Estimate memory, operations, time and cost of a training run.

    Examples: `cxrreport plan paligemma2-3b-pt-896`; `cxrreport plan --gpu H100`
    """
    options = {
        "resolution": resolution,
        "method": method,
        "batch_size": batch_size,
        "gradient_checkpointing": checkpointing,
        "gpu": gpu,
        "price": price,
        "examples": examples,
        "utilisation": utilisation,
    }
    with guarded():
        if what is not None and what.endswith((".yaml", ".yml")):
            settings = PlanSettings.of_training(TrainSettings.from_yaml(Path(what)), **options)
        else:
            settings = settings_of(PlanSettings, None, None, checkpoint=what, **options)
        offers, answer = runs.plan(settings)
        if as_json:
            print_json(
                {
                    "settings": settings.model_dump(mode="json"),
                    "offers": [offer.as_dict() for offer in offers],
                    "answer": answer,
                }
            )
            return
        console = stdout()
        first = offers[0].need
        recompute = "recomputed" if settings.gradient_checkpointing else "kept"
        title = f"{settings.method}, batch {settings.batch_size}, activations {recompute}"
        if settings.checkpoint is not None:
            title = f"{first.checkpoint}, {first.resolution} px, {title}"
            parts = table_of(title, "", "")
            parts.add_row("parameters", f"{first.parameters / 1e9:.2f} billion")
            parts.add_row("trained", f"{first.trained / 1e6:.1f} million")
            parts.add_row("tokens of an example", f"{first.tokens:,}")
            for name, size in first.memory.items():
                parts.add_row(name, f"{size / 2**30:.2f} GiB")
            parts.add_row("peak", f"{first.peak / 2**30:.1f} GiB")
            for name, operations in first.flops.items():
                parts.add_row(f"{name}, an example", f"{operations / 1e12:.1f} TFLOP")
            console.print(parts)
        table = table_of(
            title if settings.checkpoint is None else "", "checkpoint", "GPU", "GiB", "fits", "s each", "hours", "$"
        )
        for offer in offers:
            table.add_row(
                offer.need.checkpoint.removeprefix("paligemma2-"),
                offer.gpu.name,
                f"{offer.need.peak / 2**30:.1f}",
                "yes" if offer.fits else "no",
                f"{offer.seconds:.3f}",
                f"{offer.hours:,.1f}",
                f"{offer.cost:,.0f}",
            )
        console.print(table)
        console.print(answer, highlight=False)
