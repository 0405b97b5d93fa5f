"""A causal language model that proposes edits of sentences.

As in PaliGemma 2 (arXiv 2412.03555), a language model removes mentions of prior studies from reports. It runs on this
machine. Its answers are only proposals: `reports.priors` checks each, so a wrong answer costs an edit, not a falsehood.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from cxrreport.errors import SettingsError, WeightsError
from cxrreport.model.checkpoints import choose_device, fingerprint, locate, quiet
from cxrreport.records import Progress
from cxrreport.settings import CheckpointSettings, RewriterSettings
from cxrreport.storage.result_cache import ResultCache

_FILES = ("*.json", "*.safetensors", "*.jinja", "*.model", "*.txt")
"""Configuration, weights, chat template and tokenizer."""
_MORE_TOKENS = 8
"""An edit is not longer than its sentence; this leaves room for quotes and for a preface, which is rejected."""


class ModelEditor:
    """Greedy answers of a causal language model to one prompt per sentence.

    The model is loaded when it is asked for the first time something that is not in the cache.

    Args:
        settings: the model and its prompt.
        cache: SQLite file for the answers, unless the settings name one.

    Attributes:
        digest: SHA-256 of weights, configuration, tokenizer, prompt and precision, hex.

    Raises:
        SettingsError: CUDA is requested and there is none.
        WeightsError: the model is not on this machine and cannot be fetched.
    """

    def __init__(self, settings: RewriterSettings, cache: Path) -> None:
        self._settings = settings
        self._device = choose_device(settings.device)
        self._folder = locate(CheckpointSettings(name=settings.model, revision=settings.revision), files=_FILES)
        self._cache_file = settings.cache or cache
        digest = hashlib.sha256(fingerprint(self._folder).encode())
        for path in sorted(path for pattern in _FILES for path in self._folder.glob(pattern)):
            if path.suffix != ".safetensors":
                digest.update(f"\0{path.name}\0".encode() + path.read_bytes())
        digest.update(f"\0{settings.prompt}\0{settings.precision}".encode())
        self.digest = digest.hexdigest()

    def edit(self, sentences: Sequence[str], progress: Progress) -> list[str]:
        """The first line of the answer for each sentence. Each batch is stored, so a stopped run continues after it.

        Raises:
            SettingsError: the prompt is too long for the model, or the memory does not suffice for one sentence.
            WeightsError: the model cannot be loaded, or its chat template fails.
        """
        if not sentences:
            return []
        cache = ResultCache(self._cache_file, self.digest, "answers")
        answers: dict[str, str] = cache.read(sentences)
        todo = sorted(set(sentences) - answers.keys(), key=lambda text: (len(text), text))
        total, size = len(answers) + len(todo), self._settings.batch_size
        progress(len(answers), total, "sentences")
        while todo:
            batch = todo[-size:]  # the longest first: if memory runs out, it does so at once
            try:
                found = self._answer(batch)
            except torch.OutOfMemoryError:
                found = None  # handled outside, where nothing refers to the tensors any more
            if found is None:
                if len(batch) == 1:
                    raise SettingsError("rewriter: the memory of the device does not suffice; choose a smaller model")
                size = len(batch) // 2
                continue
            del todo[-size:]
            new = dict(zip(batch, found, strict=True))
            cache.write(new)
            answers |= new
            progress(len(answers), total, "sentences")
        return [answers[sentence] for sentence in sentences]

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        """Tokenizer and model."""
        dtype = torch.float32 if self._settings.precision == "float32" else torch.bfloat16
        load: Any = AutoModelForCausalLM.from_pretrained
        try:
            with quiet():
                tokenizer: Any = AutoTokenizer.from_pretrained(self._folder, local_files_only=True, padding_side="left")
                model = load(self._folder, local_files_only=True, use_safetensors=True, dtype=dtype)
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise WeightsError(
                f"{self._folder}: no causal language model that transformers can load ({type(error).__name__}); set "
                "rewriter.model to a hub id or a folder with config.json, tokenizer.json and safetensors"
            ) from error
        if tokenizer.pad_token_id is None:
            # Any token will do, because the attention mask hides it.
            tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
        return tokenizer, model.to(self._device).eval()

    def _prompt(self, tokenizer: Any, sentence: str) -> str:
        text = self._settings.prompt.replace("{sentence}", sentence)
        if not tokenizer.chat_template:
            return text
        try:
            prompt: str = tokenizer.apply_chat_template(
                [{"role": "user", "content": text}],
                tokenize=False,
                add_generation_prompt=True,
                enable_thinking=False,  # a variable of some templates; others ignore it
            )
        except Exception as error:  # a template may raise anything, and its message may quote the sentence
            raise WeightsError(
                f"{self._folder}: its chat template does not take one message of a user ({type(error).__name__}); "
                "choose another model"
            ) from None
        return prompt

    @torch.inference_mode()
    def _answer(self, batch: Sequence[str]) -> list[str]:
        tokenizer, model = self._loaded
        prompts = [self._prompt(tokenizer, sentence) for sentence in batch]
        special = not tokenizer.chat_template  # a chat template writes its own special tokens
        inputs = tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=special)
        inputs = {name: inputs[name].to(self._device) for name in ("input_ids", "attention_mask")}
        lengths = [len(tokenizer(sentence, add_special_tokens=False)["input_ids"]) for sentence in batch]
        limits = [length + _MORE_TOKENS for length in lengths]
        most = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        needed = inputs["input_ids"].shape[1] + max(limits)
        if most is not None and needed > most:
            raise SettingsError(f"rewriter.prompt: prompt and answer need {needed} tokens, and the model reads {most}")
        ends = model.generation_config.eos_token_id
        config = GenerationConfig(  # type: ignore[no-untyped-call]
            do_sample=False,
            max_new_tokens=max(limits),
            eos_token_id=ends if ends is not None else tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        output = model.generate(**inputs, generation_config=config)
        start = inputs["input_ids"].shape[1]
        # Each answer ends at its own limit, so that it does not depend on the batch.
        answers = [row[start : start + limit] for row, limit in zip(output, limits, strict=True)]
        texts = tokenizer.batch_decode(answers, skip_special_tokens=True)
        return [text.strip().partition("\n")[0].strip("\"' ") for text in texts]
