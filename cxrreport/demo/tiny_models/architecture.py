"""Tokenizer, processor and configuration of the tiny PaliGemma 2."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import GemmaTokenizer, PaliGemmaConfig, PaliGemmaProcessor, SiglipImageProcessor

from cxrreport.demo.phantoms.findings import masked, sample_findings
from cxrreport.demo.phantoms.grammar import sample_style, write_report
from cxrreport.demo.tiny_models import captions

RESOLUTION, PATCH = 224, 14
GRID = RESOLUTION // PATCH
VISION_WIDTH, TEXT_WIDTH = 128, 160
TEXT_VOCABULARY = 768
LOCATIONS, SEGMENTS = 1024, 128
TABLE_MULTIPLE = 64

INSTRUCTION = "generate the chest x-ray report indication"


def train_tokenizer(seed: int) -> GemmaTokenizer:
    """Train a byte-fallback BPE tokenizer on text of the phantoms, with special tokens in the order of Gemma's.

    The order is pad 0, eos 1, bos 2, unk 3, mask 4, the newline and a merged double newline, bytes, words, `<locNNNN>`,
    `<segNNN>`, `<image>`. The library breaks ties between equally frequent merges at random, so another run may assign
    other ids to the same words.
    """
    rng = np.random.default_rng(seed)
    corpus = [INSTRUCTION, "FINDINGS: IMPRESSION: INDICATION: TECHNIQUE: COMPARISON:"] * 50
    for _ in range(4000):
        findings = masked(sample_findings(rng, normal=0.2))
        written = write_report(findings, rng, style=sample_style(rng), prior=sample_findings(rng)).report
        corpus += [written.indication, f"FINDINGS: {written.findings} IMPRESSION: {written.impression}"]
        corpus += [captions.caption(findings), captions.describe(findings), *captions.statements(findings, rng)]
        corpus += [captions.CAPTION_PROMPT, captions.DESCRIBE_PROMPT, "detect effusion", written.indication.lower()]
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "\n", "\n\n", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(
        vocab_size=TEXT_VOCABULARY, special_tokens=special, initial_alphabet=[chr(c) for c in range(33, 127)] + ["▁"]
    )
    learner = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))  # noqa: S106 - no password
    learner.normalizer = normalizers.Replace(" ", "▁")
    # As in sentencepiece, merges are learned within words and without punctuation; encoding needs no such split.
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex("▁"), "merged_with_next"), pre_tokenizers.Split(Regex(r"[^\w▁]"), "isolated")]
    )
    learner.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    learner.train_from_iterator(corpus, trainer)
    state = json.loads(learner.to_str())["model"]
    merges: Any = [("\n", "\n"), *(tuple(pair) for pair in state["merges"])]
    tokenizer = GemmaTokenizer(
        vocab=state["vocab"],
        merges=merges,
        add_bos_token=False,
        extra_special_tokens={"image_token": "<image>"},
        model_max_length=8192,
    )
    return _with_places(tokenizer, len(state["vocab"]))


def _with_places(tokenizer: GemmaTokenizer, text_vocabulary: int) -> GemmaTokenizer:
    """Renumber the tokens so that `<image>` follows the location and segment tokens; transformers puts it first."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    kept = [token for token in state["added_tokens"] if token["id"] < text_vocabulary]
    image = next(token for token in state["added_tokens"] if token["content"] == "<image>")
    names = [f"<loc{n:04d}>" for n in range(LOCATIONS)] + [f"<seg{n:03d}>" for n in range(SEGMENTS)]
    template = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    places = [{"id": text_vocabulary + n, "content": name, **template} for n, name in enumerate(names)]
    state["added_tokens"] = [*kept, *places, image | {"id": text_vocabulary + len(names)}]
    renumbered = Tokenizer.from_str(json.dumps(state))
    return GemmaTokenizer(
        tokenizer_object=renumbered,
        add_bos_token=False,
        extra_special_tokens={"image_token": "<image>"},
        model_max_length=8192,
    )


def build_processor(tokenizer: GemmaTokenizer) -> PaliGemmaProcessor:
    """Build the processor for transformers: bilinear, scaled to [-1, 1], as in the reference implementation."""
    images: Any = SiglipImageProcessor(size={"height": RESOLUTION, "width": RESOLUTION}, resample=2)
    images.image_seq_length = GRID**2
    return PaliGemmaProcessor(images, tokenizer)  # type: ignore[no-untyped-call]


def build_config(tokenizer: GemmaTokenizer) -> PaliGemmaConfig:
    """The published configuration with small sizes; the embedding table is padded beyond the last id."""
    size = math.ceil((len(tokenizer) + 1) / TABLE_MULTIPLE) * TABLE_MULTIPLE
    values: dict[str, Any] = {
        "vision_config": {
            "model_type": "siglip_vision_model",
            "hidden_size": VISION_WIDTH,
            "intermediate_size": 4 * VISION_WIDTH,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "image_size": RESOLUTION,
            "patch_size": PATCH,
            "projection_dim": TEXT_WIDTH,
            "vision_use_head": False,
        },
        "text_config": {
            "model_type": "gemma2",
            "vocab_size": size,
            "hidden_size": TEXT_WIDTH,
            "intermediate_size": 4 * TEXT_WIDTH,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 32,
            "query_pre_attn_scalar": 32,
            "max_position_embeddings": 8192,
        },
        "image_token_index": tokenizer.convert_tokens_to_ids("<image>"),
        "projection_dim": TEXT_WIDTH,
        "hidden_size": TEXT_WIDTH,
        "bos_token_id": 2,
        "eos_token_id": 1,
        "pad_token_id": 0,
    }
    return PaliGemmaConfig(**values)
