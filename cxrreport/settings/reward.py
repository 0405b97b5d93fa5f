"""Settings of training on the metric."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from cxrreport.settings.base import PositiveInt, Settings


class RewardSettings(Settings):
    """Group-relative policy optimisation (GRPO, DeepSeekMath, arXiv 2402.03300) of sampled reports.

    Each optimiser step samples `samples` reports for each of its studies. Their rewards, relative to those of the same
    study, say which reports become more likely. `batch_size` times `accumulation` is the number of reports of a step,
    a multiple of `samples`.
    """

    adapter: Path | None = None
    """Adapter folder of `train` to start from; its prompt and LoRA settings are used. The KL penalty refers to it."""
    weights: dict[str, float] = Field(
        default_factory=lambda: {
            "radgraph_partial": 1.0,
            "findings_f1": 0.5,
            "contradictions": -0.25,
            "repetition": -0.5,
            "unfinished": -0.5,
        }
    )
    """Weight of each number in the reward, negative for what should be low. The numbers by study are those of
    `metrics`, and three more: `length`, the shorter over the longer of report and reference, in words; `repetition`,
    the share of sequences of four words that occur before in the report; `unfinished`, 1 for a report that reached the
    limit of tokens."""
    metrics: tuple[str, ...] = ("radgraph", "clinical")
    """Metrics of `evaluate`, also `module:function`, whose numbers `weights` names."""
    radgraph: str = "radgraph-xl"
    """RadGraph model, as in `evaluate`."""
    radgraph_weights: Path | None = None
    """As `weights` in `evaluate`."""
    download: bool = False
    """As in `evaluate`."""
    samples: Annotated[int, Field(ge=2)] = 8
    """Reports sampled for each study, at temperature 1."""
    iterations: PositiveInt = 1
    """Updates with the reports of one step; the clipped ratio of probabilities only matters from the second on."""
    spread: Literal["group", "none"] = "group"
    """Divide advantages by the standard deviation of the rewards of the study (`group`), or not (`none`), which does
    not favour studies whose reports are nearly equal (Dr. GRPO, arXiv 2503.20783)."""
    length: Literal["per-report", "per-token", "constant"] = "per-token"
    """Mean over the tokens of each report, then over reports (`per-report`, as GRPO, which favours short good and long
    bad reports); over all tokens of the step (`per-token`, DAPO, arXiv 2503.14476); or the sum over tokens divided by
    the limit of tokens (`constant`, Dr. GRPO)."""
    clip: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """The ratio of probabilities has no gradient below 1 minus this for bad reports."""
    clip_high: Annotated[float, Field(gt=0)] | None = None
    """And none above 1 plus this for good ones; `None` for `clip`."""
    kl: Annotated[float, Field(ge=0)] = 0.02
    """Weight of the KL divergence from the starting adapter, per token."""
    most_kl: Annotated[float, Field(gt=0)] = 1.0
    """Stop if the KL divergence, in nats per token over the last ten steps, is higher."""
    most_repetition: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Stop if `repetition` over the last ten steps is higher."""
    most_unfinished: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Stop if the share of sampled reports without an end is higher over the last ten steps."""
    fewest_distinct: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Stop if the share of distinct reports among those sampled in the last ten steps is lower."""
