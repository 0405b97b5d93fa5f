"""Causal language models with random weights, and a tokenizer of few words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

TOKENS = "<pad> <eos> <bos> <unk> <turn> <end> Stable cardiomegaly effusion No new . user model Edit : small"
WORDS = TOKENS.split()
CHATML = (
    "{% for m in messages %}<turn>{{ m.role }} {{ m.content }}<end>{% endfor %}"
    "{% if add_generation_prompt %}<turn>model {% if enable_thinking %}think{% endif %}{% endif %}"
)
GEMMA = (
    "<bos>{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{% for m in messages %}<turn>{{ m.role }}\n{{ m.content | trim }}<end>\n{% endfor %}<turn>model"
)
SIZES: dict[str, Any] = {
    "vocab_size": len(WORDS),
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
}
KINDS = {
    "llama": (None, {}),
    "qwen3": (CHATML, {}),
    "gemma2": (GEMMA, {"sliding_window": 16}),
    "gpt2": (None, {"n_embd": 32, "n_layer": 2, "n_head": 4}),
}


def write_model(folder: Path, kind: str = "llama", *, seed: int = 0) -> Path:
    template, changes = KINDS[kind]
    torch.manual_seed(seed)
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    names = {"eos_token": "<eos>", "unk_token": "<unk>", "additional_special_tokens": ["<turn>", "<end>", "<bos>"]}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)
    fast.chat_template = template
    fast.save_pretrained(folder)
    sizes = SIZES if kind != "gpt2" else {"vocab_size": len(WORDS)}
    config = AutoConfig.for_model(kind, **sizes | {"eos_token_id": 1, "pad_token_id": 0, "bos_token_id": 2} | changes)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder
