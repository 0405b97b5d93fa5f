"""The commands about models: merge, register, plan."""

from __future__ import annotations

import shlex
from pathlib import Path

from cxrreport import runs
from cxrreport.cli.app import command
from cxrreport.cli.options import ADAPTER, CONFIG, SET, TRACK, Given, argument, on_gpu, on_model, on_training
from cxrreport.cli.output import echo, perform, print_json, print_summary, stdout, table_of
from cxrreport.settings import MergeSettings, PlanSettings, RegisterSettings, TrainSettings


@command(
    MergeSettings,
    argument("adapter", metavar="ADAPTER", help="Adapter folder of train.", default=...),
    argument("output", metavar="DIR", help="Folder for the checkpoint.", default=...),
    on_model(
        "checkpoint.name",
        "--checkpoint",
        "-c",
        metavar="NAME",
        help="Base model of the adapter.",
        show_default="from its card",
    ),
    on_model("shard_gb", help="Largest weight file, GB."),
    TRACK,
    SET,
)
def merge(given: Given[MergeSettings]) -> None:
    """Merge an adapter into its base model, as a checkpoint that transformers loads.

    Example: `cxrreport merge runs/train/adapter runs/merged`
    """
    print_summary(perform(runs.merge, given.settings()), given.as_json)


@command(
    RegisterSettings,
    CONFIG,
    ADAPTER,
    on_model("name", help="Name of the registered model."),
    on_model("aliases", "--alias", help="Alias to point to this version; repeatable."),
    SET,
)
def register(given: Given[RegisterSettings]) -> None:
    """Register a fine-tuned model in MLflow as the next version of its name.

    Example: `cxrreport register --adapter runs/train/adapter --alias champion`
    """
    settings = given.settings()
    from cxrreport import serving

    registered = serving.register(settings)
    if given.as_json:
        print_json(registered.as_dict())
        return
    which = f"@{registered.aliases[0]}" if registered.aliases else f"/{registered.version}"
    stdout().print(
        f"version {registered.version} of {registered.name}, run {registered.run_id}; serve it with:",
        highlight=False,
    )
    echo(f"  export MLFLOW_TRACKING_URI={shlex.quote(registered.tracking_uri)}")
    echo(f"  export {serving.ROOT}=DIR  # below which requests may name files")
    echo(f"  mlflow models serve -m models:/{registered.name}{which} -h 127.0.0.1 -p 5001 --env-manager local")


@command(
    PlanSettings,
    argument("checkpoint", metavar="CHECKPOINT|YAML", help="Checkpoint or training settings; default: all nine sizes."),
    on_model("resolution", help="Side length: 224, 448 or 896.", show_default="the checkpoint's"),
    on_training("method", help="What is trained."),
    on_training("batch_size", help="Examples per pass."),
    on_training("gradient_checkpointing", "--checkpointing/--no-checkpointing", help="Gradient checkpointing."),
    on_training("examples", help="Examples per epoch."),
    on_gpu("gpu", metavar="NAME", help="GPU, for example H100.", show_default="all"),
    on_gpu("price", help="US dollars per GPU hour.", show_default="built-in table"),
    on_gpu("utilisation", help="Fraction of the GPU's peak that is reached."),
)
def plan(given: Given[PlanSettings]) -> None:
    """Estimate memory, operations, time and cost of a training run.

    Examples: `cxrreport plan paligemma2-3b-pt-896`; `cxrreport plan --gpu H100`
    """
    what = given.options.get("checkpoint", "")
    if what.endswith((".yaml", ".yml")):
        options = {name: value for name, value in given.options.items() if name not in ("checkpoint", "as_json")}
        settings = PlanSettings.of_training(TrainSettings.from_yaml(Path(what)), **options)
    else:
        settings = given.settings()
    offers, answer = runs.plan(settings)
    if given.as_json:
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
