"""The loop of `train` for `objective: reward`: sample reports, score them, make the better ones more likely.

It takes the place of `finetune.fit`. Sampling and scoring are those of other packages and passed in. Dropout is off, so
that a report has the same probability in sampling and in training. The random numbers of a step are functions of the
seed and the step, so a resumed run computes what an uninterrupted one does.
"""

from __future__ import annotations

import logging
import math
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs

from cxrreport.errors import SettingsError, TrainingError
from cxrreport.model import adapters
from cxrreport.model.checkpoints import LoadedModel
from cxrreport.model.fused import fused
from cxrreport.model.prompt import Batch, PromptLayout
from cxrreport.settings import RewardSettings
from cxrreport.training import checkpointing
from cxrreport.training.distributed import gathered
from cxrreport.training.finetune import collator, validate
from cxrreport.training.forward import forward
from cxrreport.training.interruption import StopRequest
from cxrreport.training.optimization import build_optimizer, learning_rate
from cxrreport.training.reward.loss import PolicyTokens, advantages, policy_loss
from cxrreport.training.run import Run
from cxrreport.training.samples import Collator, RunOrder
from cxrreport.training.step_log import read_log
from cxrreport.training.vision_features import autocast

logger = logging.getLogger(__name__)

_WINDOW = 10
"""Steps whose mean decides whether a run has run away."""


@dataclass(frozen=True, slots=True)
class SampledReport:
    """A report that was sampled for a study.

    Args:
        ids: its tokens, EOS included if it was reached.
        reward: weighted sum of `parts`.
        parts: the numbers that make up the reward, by name.
    """

    ids: tuple[int, ...]
    reward: float
    parts: Mapping[str, float]


class Sampler(Protocol):
    """Samples reports from the model and scores them."""

    @property
    def conditions(self) -> Mapping[str, Any]:
        """What the rewards depend on, as JSON values."""

    def __call__(
        self, loaded: LoadedModel, layout: PromptLayout, samples: Sequence[tuple[str, bool]], seed: int
    ) -> list[list[SampledReport]]:
        """`reward.samples` reports for each sample: the id of its first image, and whether its prior study is shown."""


def fit(run: Run, sampler: Sampler) -> str:
    """Train from the checkpoint, or from the adapter, to the last step or until the run is stopped.

    Args:
        run: of `finetune.build`.
        sampler: makes the reports of a step.

    Returns:
        Why the run was stopped before the last step; empty if it was not.

    Raises:
        SettingsError: the reports of a step cannot be shared between the processes.
        TrainingError: a loss is not finite.
        KeyboardInterrupt: as `finetune.train`.
    """
    settings, reward, processes = run.settings, run.settings.reward, run.processes
    device, network = run.loaded.device, run.loaded.model
    studies = settings.studies_per_step
    if studies % processes.count:
        raise SettingsError(
            f"batch_size x accumulation: {studies} studies of {reward.samples} reports per step cannot be shared by "
            f"{processes.count} processes; make it a multiple of {reward.samples * processes.count}"
        )
    for module in network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    start = {name: p.detach().clone() for name, p in network.named_parameters() if p.requires_grad}
    optimizer = build_optimizer(network, settings)
    if run.checkpoint is not None:
        checkpointing.load_weights(run.checkpoint, network)
        checkpointing.load_optimizer(run.checkpoint, network, optimizer, processes)
    options = DistributedDataParallelKwargs(find_unused_parameters=False)
    accelerator = Accelerator(cpu=device.type == "cpu", mixed_precision="no", kwargs_handlers=[options])
    model = accelerator.prepare_model(network, device_placement=False)
    order = RunOrder(len(run.training), run.steps * studies, settings.seed)
    collate = collator(run, run.training, run.training_features, training=True)
    logged = [line for line in read_log(run.folder / "log.jsonl") if "reward" in line]
    recent = processes.on_first(lambda: logged[-_WINDOW:])
    run.progress(run.resumed_at, run.steps, "training")
    if run.resumed_at and processes.first:
        logger.info("%s: resuming from step %d of %d", run.folder, run.resumed_at, run.steps)
    language = adapters.paligemma(network).language_model
    with fused(network, language, softcap=run.loaded.softcap), StopRequest() as stop:
        saved_at = time.monotonic()
        if not run.resumed_at:
            validate(run, 0)  # the starting adapter is kept if no step is better
        for step in range(run.resumed_at + 1, run.steps + 1):
            if reason := _runaway(recent, reward):
                return reason
            started = time.monotonic()
            items = [order[place] for place in range((step - 1) * studies, step * studies)]
            items = items[processes.rank :: processes.count]
            samples = [
                (run.training.image_ids[run.training.images(index)[0]], collate.shows_prior(position))
                for position, index in items
            ]
            network.eval()
            with autocast(device, run.dtype):
                groups = sampler(run.loaded, run.layout, samples, settings.seed * 1_000_003 + step)
            network.train()
            batches = _batches(run, collate, items, groups)
            values = _sampled(groups, run.layout.eos_id)
            # Gradients and values are averaged over processes: sums over this share become means over the step.
            tokens = processes.total(sum(len(report.ids) for group in groups for report in group)) / processes.count
            known: list[torch.Tensor] = []  # of the tokens at the first update, before which no weight has changed
            with _weights(network, start):
                reference = [_logprobs(run, network, batch) for batch in batches]
            sums = {"loss": 0.0, "kl": 0.0, "clipped": 0.0}
            rate = learning_rate(step, run.steps, settings)
            for iteration in range(reward.iterations):
                for number, batch in enumerate(batches):
                    with nullcontext() if number == len(batches) - 1 else accelerator.no_sync(model):
                        logprobs = -forward(run.loaded, model, batch, run.training_features, run.dtype)[0]
                        if iteration == 0:
                            known.append(logprobs.detach())
                        found = policy_loss(
                            PolicyTokens(
                                logprobs=logprobs,
                                sampled=known[number],
                                reference=reference[number],
                                lengths=batch["lengths"].to(device),
                                advantages=batch["advantages"].to(device),
                            ),
                            reward,
                            reports=studies * reward.samples // processes.count,
                            step_tokens=tokens,
                            most_tokens=settings.prompt.max_suffix_tokens,
                        )
                        torch.autograd.backward(found.loss)
                    if iteration == reward.iterations - 1:
                        sums["loss"] += float(found.loss.detach())
                        sums["kl"] += found.kl / tokens
                        sums["clipped"] += found.clipped / tokens
                norm = torch.nn.utils.clip_grad_norm_(network.parameters(), settings.gradient_clip)
                for group in optimizer.param_groups:
                    group["lr"] = rate
                optimizer.step()
                optimizer.zero_grad()
            values |= sums | {
                "grad_norm": float(gathered(norm)),
                "entropy": -sum(float(part.sum()) for part in known) / tokens,
            }
            values = {name: processes.mean(torch.tensor(value, device=device)) for name, value in values.items()}
            if not_finite := [name for name, value in values.items() if not math.isfinite(value)]:
                raise TrainingError(
                    f"step {step}: {not_finite[0]} is {values[not_finite[0]]}; the checkpoints in "
                    f"{run.folder / 'checkpoints'} are from before; use a lower learning_rate, and a new output folder"
                )
            recent = [*recent, values][-_WINDOW:]
            run.log(values | {"learning_rate": rate, "seconds": time.monotonic() - started}, step)
            run.progress(step, run.steps, "training")
            if step == run.steps or step % run.eval_every == 0 or _runaway(recent, reward):
                validate(run, step)
            saved_at = checkpointing.save_if_due(run, step, optimizer, stop, saved_at)
            if run.best.exhausted:
                break
    return ""


def _batches(
    run: Run, collate: Collator, items: Sequence[tuple[int, int]], groups: Sequence[Sequence[SampledReport]]
) -> list[Batch]:
    """The reports of this process in batches, with `advantages` float32[B] and `lengths` int64[B]."""
    rewards = torch.tensor([[report.reward for report in group] for group in groups])
    advantage = advantages(rewards, run.settings.reward).flatten()
    reports = [(item, report.ids) for item, group in zip(items, groups, strict=True) for report in group]
    batches = []
    size = run.settings.batch_size
    for first in range(0, len(reports), size):
        part = reports[first : first + size]
        batch = collate([item for item, _ in part], [ids for _, ids in part])
        batch["advantages"] = advantage[first : first + size]
        batch["lengths"] = torch.tensor([len(ids) for _, ids in part])
        batches.append(batch)
    return batches


@torch.no_grad()
def _logprobs(run: Run, model: Any, batch: Batch) -> torch.Tensor:
    """Log-probabilities of the tokens of a batch, float32[T]."""
    return -forward(run.loaded, model, batch, run.training_features, run.dtype)[0]


@contextmanager
def _weights(network: torch.nn.Module, weights: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """Use other values of the trained parameters within the block."""
    parameters = {name: parameter for name, parameter in network.named_parameters() if name in weights}
    own = {name: parameter.data for name, parameter in parameters.items()}
    try:
        for name, parameter in parameters.items():
            parameter.data = weights[name]
        yield
    finally:
        for name, parameter in parameters.items():
            parameter.data = own[name]


def _sampled(groups: Sequence[Sequence[SampledReport]], eos_id: int) -> dict[str, float]:
    """Means over the sampled reports of this process, for the log."""
    reports = [report for group in groups for report in group]
    parts = {f"reward/{name}": statistics.fmean(one.parts[name] for one in reports) for name in reports[0].parts}
    return {
        "reward": statistics.fmean(report.reward for report in reports),
        "reward_spread": statistics.fmean(statistics.pstdev(report.reward for report in group) for group in groups),
        "tokens": statistics.fmean(len(report.ids) for report in reports),
        "unfinished": statistics.fmean(report.ids[-1] != eos_id for report in reports),
        "distinct": len({report.ids for report in reports}) / len(reports),
        **parts,
    }


def _runaway(recent: Sequence[Mapping[str, float]], reward: RewardSettings) -> str:
    """Why the last steps are not worth continuing; empty if they are."""
    if len(recent) < _WINDOW:
        return ""
    for name, limit, sign, what in (
        ("kl", reward.most_kl, 1, "KL divergence from the starting adapter"),
        ("reward/repetition", reward.most_repetition, 1, "repetition within reports"),
        ("unfinished", reward.most_unfinished, 1, "share of unfinished reports"),
        ("distinct", reward.fewest_distinct, -1, "share of distinct reports"),
    ):
        mean = statistics.fmean(line[name] for line in recent if name in line)
        if sign * mean > sign * limit:
            return f"{what} is {mean:.3g} over the last {_WINDOW} steps (limit {limit:g})"
    return ""
