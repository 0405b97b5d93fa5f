"""The loss of training on the metric equals that of TRL's GRPO, value and gradient, on the same tensors and models."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from cxrreport.model import adapters, checkpoints
from cxrreport.model.fused import fused
from cxrreport.model.prompt import PromptLayout, pixel_values
from cxrreport.records import Report
from cxrreport.settings import CheckpointSettings, LoraSettings, PromptSettings, RewardSettings
from cxrreport.training.forward import forward
from cxrreport.training.reward.loss import PolicyTokens, advantages, policy_loss

grpo = pytest.importorskip("trl.trainer.grpo_trainer")
pytestmark = pytest.mark.stock("trl", "transformers", "peft")

MOST = 20
TRL_NAMES = {"per-report": "grpo", "per-token": "dapo", "constant": "dr_grpo"}


def trl_loss(settings: RewardSettings, logprobs: Any, inputs: dict[str, torch.Tensor]) -> tuple[torch.Tensor, Any]:
    """The loss of TRL for one batch that is the whole step; `logprobs` makes those of the model, float[B, T]."""
    trainer = object.__new__(grpo.GRPOTrainer)
    trainer.accelerator = Accelerator(cpu=True)
    trainer.model = torch.nn.Linear(1, 1).train()
    trainer.args = SimpleNamespace(use_bias_correction_kl=False, delta=None, steps_per_generation=1)
    trainer.loss_type = TRL_NAMES[settings.length]
    trainer.beta, trainer.epsilon_low = settings.kl, settings.clip
    trainer.epsilon_high = settings.clip if settings.clip_high is None else settings.clip_high
    trainer.max_completion_length = MOST
    trainer.importance_sampling_level, trainer.top_entropy_quantile = "token", 1.0
    trainer.off_policy_mask_threshold = None
    trainer.aux_loss_enabled = trainer.use_vllm = trainer._entropy_bonus_enabled = trainer.use_adaptive_entropy = False
    trainer.current_gradient_accumulation_steps = 1
    trainer._metrics = {"train": defaultdict(list), "eval": defaultdict(list)}
    trainer._get_per_token_logps_and_entropies = lambda *_, **__: (logprobs(), torch.zeros(1, 1), None)
    inputs = inputs | {"num_items_in_batch": inputs["completion_mask"].sum()}
    return trainer._compute_loss(None, inputs), trainer._metrics["train"]


def padded(flat: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    return torch.nn.utils.rnn.pad_sequence(list(flat.split(lengths.tolist())), batch_first=True)


@pytest.mark.parametrize("length", TRL_NAMES)
@pytest.mark.parametrize("changes", [{}, {"clip_high": 0.5}, {"kl": 0.0}, {"kl": 0.3, "clip": 0.05}])
def test_loss_and_gradient_are_those_of_trl(length: Any, changes: dict[str, float]) -> None:
    settings = RewardSettings(length=length, **changes)
    generator = torch.Generator().manual_seed(1)
    lengths = torch.tensor([7, 1, 12, 4])

    def numbers() -> torch.Tensor:
        return torch.randn(int(lengths.sum()), generator=generator) - 2

    ours, sampled, reference = numbers().requires_grad_(), numbers(), numbers()
    theirs = padded(ours.detach(), lengths).requires_grad_()
    advantage = torch.tensor([1.5, -0.5, 0.0, -1.0])
    found = policy_loss(
        PolicyTokens(logprobs=ours, sampled=sampled, reference=reference, lengths=lengths, advantages=advantage),
        settings,
        reports=4,
        step_tokens=int(lengths.sum()),
        most_tokens=MOST,
    )
    mask = (torch.arange(int(lengths.max())) < lengths[:, None]).int()
    inputs = {
        "prompt_ids": torch.zeros(4, 1, dtype=torch.int64), "prompt_mask": torch.ones(4, 1, dtype=torch.int64),
        "completion_ids": torch.zeros_like(mask), "completion_mask": mask, "advantages": advantage,
        "old_per_token_logps": padded(sampled, lengths), "ref_per_token_logps": padded(reference, lengths),
    }  # fmt: skip
    wanted, metrics = trl_loss(settings, lambda: theirs, inputs)
    torch.testing.assert_close(found.loss, wanted)
    found.loss.backward()
    wanted.backward()
    torch.testing.assert_close(padded(ours.grad, lengths), theirs.grad)
    if settings.kl:
        assert found.kl / int(lengths.sum()) == pytest.approx(metrics["kl"][0])
    assert found.clipped / int(lengths.sum()) == pytest.approx(metrics["clip_ratio/region_mean"][0])


@pytest.mark.parametrize("spread", ["group", "none"])
def test_advantages(spread: Any) -> None:
    rewards = torch.tensor([[0.1, 0.4, 0.4, 0.9], [0.5, 0.5, 0.5, 0.5]])
    found = advantages(rewards, RewardSettings(spread=spread))
    # Lines 2767 to 2787 of TRL 1.16's GRPOTrainer, for `scale_rewards`.
    wanted = rewards - rewards.mean(1, keepdim=True)
    if spread == "group":
        wanted = wanted / (grpo.nanstd(rewards, dim=1)[:, None] + 1e-4)
    torch.testing.assert_close(found, wanted)
    assert found[1].tolist() == [0, 0, 0, 0] and found[0].sum().item() == pytest.approx(0, abs=1e-5)


def test_gradients_of_a_model_are_those_of_trl_on_the_layers_of_transformers(
    checkpoint_folder: Path, manifest: Any
) -> None:
    """Our pass computes suffix positions only and replaces layers; theirs is transformers' own."""
    settings = RewardSettings(kl=0.1, length="per-token")
    stock_model = checkpoints.load(
        CheckpointSettings(name=str(checkpoint_folder), precision="float32", device="cpu"), resolution=224
    )
    layout = PromptLayout(stock_model.tokenizer, PromptSettings(), stock_model.image_tokens)
    model, _ = adapters.attach(stock_model.model, LoraSettings(rank=4, alpha=8, dropout=0.0))
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    loaded = dataclasses.replace(stock_model, model=model)
    encoded = layout.encode_prefix(layout.prefix(Report(indication="cough")))
    suffixes = [(20, 21, 22, layout.eos_id), (30, layout.eos_id), (40, 41, 42, 43, 44)]
    batch = layout.collate_training([dataclasses.replace(encoded, suffix=ids) for ids in suffixes])
    images = [manifest.image(f"train-{number}") for number in range(3)]
    batch["grey"] = torch.stack([torch.from_numpy(image) for image in images])
    batch["pools"] = torch.ones(3, dtype=torch.int64)
    lengths = torch.tensor([len(ids) for ids in suffixes])
    advantage = torch.tensor([1.0, -0.4, -0.6])
    generator = torch.Generator().manual_seed(2)
    noise = torch.randn(int(lengths.sum()), generator=generator) * 0.1

    def gradients() -> list[torch.Tensor]:
        found = [p.grad.clone() for p in model.parameters() if p.requires_grad]
        model.zero_grad()
        return found

    with fused(model, adapters.paligemma(model).language_model, softcap=False):
        logprobs = -forward(loaded, model, batch, None, torch.float32)[0]
        sampled, reference = logprobs.detach() + noise, logprobs.detach() - noise
        ours = policy_loss(
            PolicyTokens(
                logprobs=logprobs, sampled=sampled, reference=reference, lengths=lengths, advantages=advantage
            ),
            settings,
            reports=3,
            step_tokens=int(lengths.sum()),
            most_tokens=MOST,
        ).loss
        ours.backward()
    own = gradients()

    border = len(batch["input_ids"][0]) - int(lengths.max())

    def stock() -> torch.Tensor:
        names = ("input_ids", "attention_mask", "token_type_ids", "position_ids")
        output = model(**{name: batch[name] for name in names}, pixel_values=pixel_values(images))
        rows = output.logits[:, border - 1 : -1].float().log_softmax(-1)
        return rows.gather(-1, batch["input_ids"][:, border:, None])[..., 0]

    inputs = {
        "prompt_ids": batch["input_ids"][:, :border], "prompt_mask": batch["attention_mask"][:, :border],
        "completion_ids": batch["input_ids"][:, border:], "completion_mask": batch["attention_mask"][:, border:],
        "advantages": advantage, "old_per_token_logps": padded(sampled, lengths),
        "ref_per_token_logps": padded(reference, lengths),
    }  # fmt: skip
    model.train()
    theirs, _ = trl_loss(settings, stock, inputs)
    theirs.backward()
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    for one, other in zip(own, gradients(), strict=True):
        torch.testing.assert_close(one, other, rtol=2e-3, atol=1e-6)
    assert max(float(one.abs().max()) for one in own) > 1e-3
