"""The commands about models: merge, register, plan."""

from __future__ import annotations

import shlex
from pathlib import Path

from cxrreport import runs
from cxrreport.cli.app import command
from cxrreport.cli.options import (
    ADAPTER,
    CONFIG,
    SET,
    TRACK,
    Given,
    argument,
    on_data,
    on_gpu,
    on_model,
    on_scoring,
    on_training,
)
from cxrreport.cli.output import echo, perform, print_json, print_summary, stdout, table_of
from cxrreport.settings import MergeSettings, PlanSettings, RegisterSettings


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
    on_scoring("scores", metavar="DIR", help="Output folder of evaluate for this adapter."),
    on_scoring("if_better_than", metavar="ALIAS", help="Register only if better than the version with this alias."),
    on_scoring("against", metavar="DIR", help="Evaluation of that version.", show_default="as registered"),
    SET,
)
def register(given: Given[RegisterSettings]) -> None:
    """Register a fine-tuned model in MLflow as the next version of its name.

    With `--if-better-than` it is an error if the model is not better, by a paired test on the same studies.

    Examples: `cxrreport register --adapter adapter --alias champion`;
    `cxrreport register --adapter adapter --scores scores --if-better-than champion --alias champion`
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
    argument(
        "checkpoint",
        metavar="CHECKPOINT|YAML",
        help="Checkpoint, or settings of train or generate; default: all nine sizes.",
    ),
    on_data("task", "--for", help="What is estimated.", show_default="training, or what the YAML file describes"),
    on_model("resolution", help="Side length: 224, 448 or 896.", show_default="the checkpoint's"),
    on_model("max_images", "--images", help="Images of a study per example."),
    on_model("prior_image", "--prior-image/--no-prior-image", help="An image of the prior study as well."),
    on_model("pool", help="Average all images but the first over squares of 2 or 4 patches."),
    on_training("method", help="What is trained; qlora: weights in 4 bits, for generation too."),
    on_training("batch_size", help="Examples per pass."),
    on_training("gradient_checkpointing", "--checkpointing/--no-checkpointing", help="Gradient checkpointing."),
    on_training("examples", help="Examples per epoch.", show_default="those of the YAML file's data, or 210000"),
    on_training("epochs", help="Passes over the examples.", show_default="the YAML file's, or 1"),
    on_data("studies", help="Studies of the archive, for generation."),
    on_gpu("gpu", metavar="NAME", help="GPU, for example H100.", show_default="all"),
    on_gpu("price", help="US dollars per GPU hour.", show_default="built-in table"),
    on_gpu("utilisation", help="Fraction of the GPU's peak that is reached."),
)
def plan(given: Given[PlanSettings]) -> None:
    """Estimate memory, time and cost of a training run, or of the reports of an archive.

    Examples: `cxrreport plan train.yaml`; `cxrreport plan --gpu H100`;
    `cxrreport plan paligemma2-3b-pt-896 --for generation --studies 50000`
    """
    what = given.options.get("checkpoint", "")
    if what.endswith((".yaml", ".yml")):
        options = {name: value for name, value in given.options.items() if name not in ("checkpoint", "as_json")}
        settings = runs.plan_settings(Path(what), options)
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
    fitting = [offer for offer in offers if offer.fits]
    need = (fitting or offers)[0].need
    if settings.checkpoint is not None:
        parts = table_of(f"{need.checkpoint}, {need.resolution} px", "", "")
        for name, value in need.described().items():
            parts.add_row(name, value)
        console.print(parts)
    if fitting:
        columns = fitting[0].described()
        table = table_of("" if settings.checkpoint is not None else _title(settings), "checkpoint", "GPU", *columns)
        for offer in fitting:
            name = offer.need.checkpoint.removeprefix("paligemma2-")
            table.add_row(name, offer.gpu.name, *offer.described().values())
        console.print(table)
    if left_out := len(offers) - len(fitting):
        names = sorted(
            {offer.gpu.name if settings.gpu is None else offer.need.checkpoint for offer in offers if not offer.fits}
        )
        console.print(f"{left_out} left out because they do not fit: {', '.join(names)}", highlight=False)
    console.print(answer, highlight=False)


def _title(settings: PlanSettings) -> str:
    if settings.task == "generation":
        return "generation"
    recompute = "recomputed" if settings.gradient_checkpointing else "kept"
    return f"{settings.method}, batch {settings.batch_size}, activations {recompute}"
