"""A random PaliGemma 2 of two layers, in a folder as `save_pretrained` writes it, with the real layout of tokens."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, trainers
from transformers import PaliGemmaConfig, PaliGemmaForConditionalGeneration

TEXTS = [
    "generate the chest x-ray report indication: cough and fever",
    "FINDINGS: The heart is enlarged. Small left pleural effusion. No pneumothorax. IMPRESSION: Cardiomegaly.",
    "FINDINGS: The lungs are clear. IMPRESSION: No acute process. <loc0001> <image>",
]


def make_tokenizer() -> Tokenizer:
    """Byte pairs as Gemma's: pad 0, eos 1, bos 2, a newline token and a merged one, then <loc>, <seg> and <image>."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse()])
    trainer = trainers.BpeTrainer(
        vocab_size=200, special_tokens=["<pad>", "<eos>", "<bos>", "<unk>"], show_progress=False, limit_alphabet=100
    )
    tokenizer.train_from_iterator([*TEXTS, "\n\n", "\n\n"], trainer)
    tokenizer.add_tokens([AddedToken("\n", normalized=False), AddedToken("\n\n", normalized=False)])
    tokenizer.add_special_tokens([f"<loc{i:04d}>" for i in range(1024)])
    tokenizer.add_special_tokens([f"<seg{i:03d}>" for i in range(128)])
    tokenizer.add_special_tokens(["<image>"])
    return tokenizer


def make_model(tokenizer: Tokenizer, image_size: int = 224, patch_size: int = 56) -> PaliGemmaForConditionalGeneration:
    """Stock: soft-capping and the sliding window as published. Weights wide enough that attention is not uniform."""
    image_id = tokenizer.token_to_id("<image>")
    rows = (image_id // 64 + 2) * 64
    config = PaliGemmaConfig(
        vision_config={
            "model_type": "siglip_vision_model",
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "patch_size": patch_size,
            "image_size": image_size,
            "vision_use_head": False,
        },
        text_config={
            "model_type": "gemma2",
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "query_pre_attn_scalar": 8,
            "vocab_size": rows,
            "initializer_range": 0.3,
        },
        image_token_index=image_id,
        vocab_size=rows,
        projection_dim=32,
        hidden_size=32,
    )
    torch.manual_seed(0)
    model = PaliGemmaForConditionalGeneration(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1 and "embed_tokens" not in name:
                weight.normal_(std=0.25)
            elif "embed_tokens" in name:
                weight.normal_(std=0.5)
    return model.eval()


def write_checkpoint(folder: Path, **sizes: int) -> Path:
    tokenizer = make_tokenizer()
    make_model(tokenizer, **sizes).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="session")
def checkpoint_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """16 image tokens at 224 px."""
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"))
