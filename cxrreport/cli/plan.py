"""The command that answers before anything is spent: what does it need, and which size do I take."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cxrreport import runs
from cxrreport.cli.app import app
from cxrreport.cli.options import Json
from cxrreport.cli.output import guarded, print_json, stdout, table_of
from cxrreport.settings import PlanSettings, TrainSettings, build, merge


class Method(StrEnum):
    """What is trained."""

    LORA = "lora"
    QLORA = "qlora"
    FULL = "full"


@app.command()
def plan(
    what: Annotated[
        str | None,
        typer.Argument(metavar="CHECKPOINT|YAML", help="Checkpoint, or settings of a training; none: all nine."),
    ] = None,
    resolution: Annotated[int | None, typer.Option(help="224, 448 or 896.", show_default="checkpoint's")] = None,
    method: Annotated[Method | None, typer.Option(help="What is trained.", show_default="lora")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Examples at once.", show_default="1")] = None,
    checkpointing: Annotated[
        bool | None,
        typer.Option("--checkpointing/--no-checkpointing", help="Recompute activations.", show_default="recompute"),
    ] = None,
    gpu: Annotated[str | None, typer.Option(metavar="NAME", help="A card, e.g. H100.", show_default="all")] = None,
    price: Annotated[float | None, typer.Option(min=0, help="Dollars per GPU hour.", show_default="a table's")] = None,
    examples: Annotated[int | None, typer.Option(min=1, help="Of one epoch.", show_default="210000")] = None,
    utilisation: Annotated[float | None, typer.Option(help="Part of the GPU's peak.", show_default="0.4")] = None,
    as_json: Json = False,
) -> None:
    """What a training run needs: memory, operations, time and cost, before any.

    Examples: `cxrreport plan paligemma2-3b-pt-896`; `cxrreport plan --gpu H100`
    """
    given = {
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
            settings = PlanSettings.of_training(TrainSettings.from_yaml(Path(what)), **given)
        else:
            settings = build(PlanSettings, merge({"checkpoint": what}, given), where="command line")
        offers, answer = runs.plan(settings)
        if as_json:
            print_json(
                {
                    "settings": settings.model_dump(mode="json"),
                    "offers": [one.as_dict() for one in offers],
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
        for one in offers:
            table.add_row(
                one.need.checkpoint.removeprefix("paligemma2-"),
                one.gpu.name,
                f"{one.need.peak / 2**30:.1f}",
                "yes" if one.fits else "no",
                f"{one.seconds:.3f}",
                f"{one.hours:,.1f}",
                f"{one.cost:,.0f}",
            )
        console.print(table)
        console.print(answer, highlight=False)
