"""Random PaliGemma 2 checkpoints of two layers, in folders as `save_pretrained` writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PaliGemmaConfig, PaliGemmaForConditionalGeneration

SPECIAL = ["<pad>", "<eos>", "<bos>", "<unk>"]
TEXTS = [
    "generate the chest x-ray report indication: cough and fever",
    "FINDINGS: The heart is enlarged. Small left pleural effusion. No pneumothorax. IMPRESSION: Cardiomegaly.",
    "FINDINGS: The lungs are clear. IMPRESSION: No acute process. <loc0001> <image>",
]
GENERATION_TEXT = (
    "generate the chest x-ray report indication: cough fever chest pain FINDINGS: The heart is enlarged. Small left "
    "pleural effusion. No pneumothorax. Lungs are clear. IMPRESSION: No acute process."
)


def write_checkpoint(folder: Path) -> Path:
    """224 px, 16 image tokens, a tokenizer with all special tokens of Gemma.

    Stock: soft-capping and the sliding window as published. Weights wide enough that attention is not uniform.
    """
    tokenizer = _gemma_tokenizer()
    rows = (tokenizer.token_to_id("<image>") // 64 + 2) * 64
    config = _config(tokenizer, rows=rows, image_size=224, patch_size=56, initializer_range=0.3)
    torch.manual_seed(0)
    model = PaliGemmaForConditionalGeneration(config)
    _randomise(model, embeddings=0.5, others=0.25)
    return _write(folder, model, tokenizer)


def write_wide_checkpoint(folder: Path) -> Path:
    """230 MB in six matrices of 38 MB, for measurements of memory."""
    tokenizer = _gemma_tokenizer()
    rows = (tokenizer.token_to_id("<image>") // 64 + 2) * 64
    config = _config(tokenizer, rows=rows, image_size=224, patch_size=56, intermediate_size=300_000)
    return _write(folder, PaliGemmaForConditionalGeneration(config), tokenizer)


def write_generation_checkpoint(folder: Path, *, image_size: int) -> Path:
    """16 image tokens, weights that write reports of different lengths depending on the image and the prompt."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=150, special_tokens=SPECIAL, show_progress=False)
    tokenizer.train_from_iterator([GENERATION_TEXT], trainer)
    tokenizer.add_tokens([AddedToken("\n", normalized=False)])
    tokenizer.add_special_tokens([f"<loc{number:04d}>" for number in range(8)])
    tokenizer.add_special_tokens(["<image>"])
    image_id = tokenizer.token_to_id("<image>")
    config = _config(tokenizer, rows=image_id + 8, image_size=image_size, patch_size=image_size // 4)
    torch.manual_seed(1)
    model = PaliGemmaForConditionalGeneration(config)
    _randomise(model, embeddings=0.1, others=0.3)
    with torch.no_grad():
        # Small embeddings and a large last norm: the text depends on the input, and no two logits are close.
        model.model.language_model.norm.weight.fill_(9.0)
        # EOS often enough that reports end at different lengths, and suppressed ids that would win otherwise.
        table = model.get_input_embeddings().weight
        table[1] *= 1.7
        table[image_id - 4 :] *= 3
    return _write(folder, model, tokenizer)


def _gemma_tokenizer() -> Tokenizer:
    """Byte pairs as Gemma's: pad 0, eos 1, bos 2, a newline token and a merged one, then <loc>, <seg> and <image>."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse()])
    trainer = trainers.BpeTrainer(vocab_size=200, special_tokens=SPECIAL, show_progress=False, limit_alphabet=100)
    tokenizer.train_from_iterator([*TEXTS, "\n\n", "\n\n"], trainer)
    tokenizer.add_tokens([AddedToken("\n", normalized=False), AddedToken("\n\n", normalized=False)])
    tokenizer.add_special_tokens([f"<loc{i:04d}>" for i in range(1024)])
    tokenizer.add_special_tokens([f"<seg{i:03d}>" for i in range(128)])
    tokenizer.add_special_tokens(["<image>"])
    return tokenizer


def _config(tokenizer: Tokenizer, *, rows: int, image_size: int, patch_size: int, **text: Any) -> PaliGemmaConfig:
    size = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    vision = {"num_attention_heads": 2, "patch_size": patch_size, "image_size": image_size, "vision_use_head": False}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "query_pre_attn_scalar": 8}
    return PaliGemmaConfig(
        vision_config={"model_type": "siglip_vision_model", **size, **vision},
        text_config={"model_type": "gemma2", **size, **heads, "vocab_size": rows, **text},
        image_token_index=tokenizer.token_to_id("<image>"),
        vocab_size=rows,
        projection_dim=32,
        hidden_size=32,
    )


def _randomise(model: Any, *, embeddings: float, others: float) -> None:
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                weight.normal_(std=embeddings if "embed_tokens" in name else others)


def _write(folder: Path, model: Any, tokenizer: Tokenizer) -> Path:
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder
