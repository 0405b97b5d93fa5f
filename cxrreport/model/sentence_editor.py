"""A causal language model that proposes edits of sentences.

As in PaliGemma 2 (arXiv 2412.03555), a language model removes mentions of prior studies from reports. It runs on this
machine. Its answers are only proposals: `reports.priors` checks each, so a wrong answer costs an edit, not a falsehood.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from cxrreport.errors import WeightsError
from cxrreport.model.checkpoints import choose_device, fingerprint, locate
from cxrreport.records import Progress
from cxrreport.settings import CheckpointSettings, RewriterSettings

_MORE_TOKENS = 8
"""An edit is not longer than its sentence; this leaves room for a preface, which is rejected."""


class ModelEditor:
    """Greedy answers of a causal language model to one prompt per sentence.

    Attributes:
        digest: SHA-256 of weights, tokenizer and prompt, hex.

    Raises:
        SettingsError: CUDA is requested and there is none.
        WeightsError: the model is not on this machine and cannot be fetched, or cannot be loaded.
    """

    def __init__(self, settings: RewriterSettings) -> None:
        folder = locate(CheckpointSettings(name=settings.model, revision=settings.revision))
        self._settings = settings
        self._device = choose_device(settings.device)
        load: Any = AutoModelForCausalLM.from_pretrained
        dtype = torch.float32 if settings.precision == "float32" else torch.bfloat16
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True, padding_side="left")
            self._model = load(folder, local_files_only=True, use_safetensors=True, dtype=dtype).to(self._device).eval()
        except (OSError, ValueError, KeyError) as error:
            raise WeightsError(
                f"{folder}: no causal language model that transformers can load ({type(error).__name__}); set "
                "rewriter.model to a hub id or a folder with config.json, tokenizer.json and safetensors"
            ) from error
        if self._tokenizer.pad_token_id is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        self._answers: dict[str, str] = {}
        vocabulary = json.dumps(self._tokenizer.get_vocab(), sort_keys=True)
        parts = (
            fingerprint(folder),
            vocabulary,
            self._tokenizer.chat_template or "",
            settings.prompt,
            settings.precision,
        )
        self.digest = hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()

    def edit(self, sentences: Sequence[str], progress: Progress) -> list[str]:
        """The first line of the answer for each sentence; sentences that were answered before are not asked again."""
        new = [sentence for sentence in dict.fromkeys(sentences) if sentence not in self._answers]
        new.sort(key=len)
        for start in range(0, len(new), self._settings.batch_size):
            batch = new[start : start + self._settings.batch_size]
            self._answers.update(zip(batch, self._answer(batch), strict=True))
            progress(start + len(batch), len(new), "sentences")
        return [self._answers[sentence] for sentence in sentences]

    def _prompt(self, sentence: str) -> str:
        text = self._settings.prompt.replace("{sentence}", sentence)
        if not self._tokenizer.chat_template:
            return text
        messages = [{"role": "user", "content": text}]
        prompt: str = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return prompt

    @torch.inference_mode()
    def _answer(self, batch: Sequence[str]) -> list[str]:
        special = not self._tokenizer.chat_template  # a chat template writes its own special tokens
        prompts = [self._prompt(sentence) for sentence in batch]
        inputs = self._tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=special)
        inputs = {name: inputs[name].to(self._device) for name in ("input_ids", "attention_mask")}
        lengths = [len(self._tokenizer(sentence, add_special_tokens=False)["input_ids"]) for sentence in batch]
        limits = [length + _MORE_TOKENS for length in lengths]
        ends = self._model.generation_config.eos_token_id
        config = GenerationConfig(  # type: ignore[no-untyped-call]
            do_sample=False,
            max_new_tokens=max(limits),
            eos_token_id=ends if ends is not None else self._tokenizer.eos_token_id,
            pad_token_id=self._tokenizer.pad_token_id,
        )
        try:
            output = self._model.generate(**inputs, generation_config=config)
        except torch.OutOfMemoryError:
            if len(batch) == 1:
                raise
            half = len(batch) // 2
            return self._answer(batch[:half]) + self._answer(batch[half:])
        start = inputs["input_ids"].shape[1]
        # Each answer ends at its own limit, so that it does not depend on the batch.
        answers = [row[start : start + limit] for row, limit in zip(output, limits, strict=True)]
        texts = self._tokenizer.batch_decode(answers, skip_special_tokens=True)
        return [text.strip().partition("\n")[0].strip("\"' ") for text in texts]
