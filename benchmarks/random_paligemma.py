"""PaliGemma 2 with random weights and the real vocabulary, in a folder that transformers and this project load.

Soft-capping is off and the attention window is longer than the sequence, as in transfer (arXiv 2412.03555, section 3).
Both methods of a benchmark then compute the same function, and stock is spared the cost of soft-capping.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from transformers import (
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    PaliGemmaProcessor,
    PreTrainedTokenizerFast,
    SiglipImageProcessor,
)

from cxrreport.model import attention

WORDS, IMAGE_ID, ROWS = 256_000, 257_152, 257_216
PREFIX_WORDS, SUFFIX_TOKENS = 70, 128
"""With 4,096 image tokens, BOS and separator: 4,296 positions."""


def small_config(resolution: int) -> PaliGemmaConfig:
    """Vision 192 wide, 4 layers; language model 256 wide, 6 layers, 4 heads, 2 key-value heads, head 64."""
    return PaliGemmaConfig(
        vision_config={
            "model_type": "siglip_vision_model",
            "hidden_size": 192,
            "intermediate_size": 768,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "patch_size": 14,
            "image_size": resolution,
            "vision_use_head": False,
        },
        text_config={
            "model_type": "gemma2",
            "hidden_size": 256,
            "intermediate_size": 1024,
            "num_hidden_layers": 6,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 64,
            "query_pre_attn_scalar": 64,
            "initializer_range": 0.1,  # wide enough that attention is not uniform, nor the loss that of guessing
            "vocab_size": ROWS,
        },
        image_token_index=IMAGE_ID,
        vocab_size=ROWS,
        projection_dim=256,
        hidden_size=256,
    )


def make_tokenizer() -> Tokenizer:
    """A word per id, with the ids of Gemma: pad 0, eos 1, bos 2, newline 108, locations, segments, `<image>`."""
    special = ["<pad>", "<eos>", "<bos>", "<unk>"]
    vocabulary = {name: index for index, name in enumerate(special)}
    vocabulary |= {"\n" if index == 108 else f"w{index}": index for index in range(len(special), WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", behavior="removed")
    tokenizer.add_special_tokens(special)
    tokenizer.add_tokens([AddedToken("\n", normalized=False)])
    tokenizer.add_tokens([f"<loc{i:04d}>" for i in range(1024)] + [f"<seg{i:03d}>" for i in range(128)])
    tokenizer.add_special_tokens(["<image>"])
    if tokenizer.token_to_id("<image>") != IMAGE_ID:
        raise SystemExit("the tokenizer has other ids than Gemma's")
    return tokenizer


def write(
    folder: Path,
    config: PaliGemmaConfig,
    *,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    writes: bool = False,
) -> None:
    """Weights, configuration, processor and tokenizer as `save_pretrained` writes them.

    With `writes`, its texts have many different words and never end.
    """
    attention.prepare_config(config, softcap=False)
    torch.manual_seed(0)
    with torch.device(device):
        model = PaliGemmaForConditionalGeneration(config)
    if writes:
        _let_write(model)
    model.to(dtype).save_pretrained(folder)
    side = config.vision_config.image_size
    processor = PaliGemmaProcessor(
        image_processor=SiglipImageProcessor(
            size={"height": side, "width": side},
            image_seq_length=(side // config.vision_config.patch_size) ** 2,
            image_mean=[0.5] * 3,
            image_std=[0.5] * 3,
        ),
        tokenizer=PreTrainedTokenizerFast(
            tokenizer_object=make_tokenizer(), pad_token="<pad>", eos_token="<eos>", bos_token="<bos>"
        ),
    )
    processor.save_pretrained(folder)


def _let_write(model: PaliGemmaForConditionalGeneration) -> None:
    table = model.get_input_embeddings().weight.data
    # The head is the same table: a row of zeros is never the largest. Padding, EOS, BOS, and all beyond the text.
    table[:3] = 0
    table[WORDS:] = 0
    # The head also makes a model of random weights write its last token again and again: random signs before it, small
    # embeddings so that there is more in a state than the last token, and logits far enough apart.
    table *= 0.4
    norm = model.model.language_model.norm.weight.data
    signs = 2 * torch.randint(0, 2, norm.shape, generator=torch.Generator().manual_seed(0)) - 1
    norm.copy_(3.0 * signs - 1)  # Gemma scales by 1 + weight


def write_samples(folder: Path, count: int, side: int) -> None:
    """Noise as images, and random words as indication and report, in `samples.json`: the same for every side."""
    draw = np.random.default_rng(0)
    rows = []
    for number in range(count):
        Image.fromarray(draw.integers(0, 256, (side, side), dtype=np.uint8)).save(folder / f"{number}.png")
        words = [f"w{i}" for i in draw.integers(200, WORDS, PREFIX_WORDS + SUFFIX_TOKENS)]
        # The last of the suffix is EOS; one more is the header of its section, and two words open the prefix.
        report = {"indication": " ".join(words[: PREFIX_WORDS - 2]), "impression": " ".join(words[PREFIX_WORDS:-2])}
        rows.append({"image": f"{number}.png", **report})
    (folder / "samples.json").write_text(json.dumps(rows))
