r"""Token layout of prompts and reports.

    [image tokens] [BOS prefix] ["\n"] [suffix EOS]
     full attention ------------------   causal
     no loss -------------------------   loss

This is the layout of the reference implementation (big_vision, `paligemma`): the separator is tokenised separately, the
loss is on the suffix, and the tokens of several images follow in their order. A prompt of a lateral or a prior study
(`PromptSettings.several_inputs`) names them at the end of the prefix. The processor of transformers is not used: it
merges a newline at the end of the prefix with the separator, truncates the prompt or the EOS, and resizes images
differently.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from cxrreport.dataset import ImageRole
from cxrreport.errors import MismatchError
from cxrreport.model.checkpoints.files import BOS, EOS, FIRST_SPECIAL, IMAGE, PAD
from cxrreport.records import PriorStudy, Report
from cxrreport.reports.sections import split_generated
from cxrreport.settings import PromptSettings

IGNORED = -100
"""Label of a token without loss."""

Batch = dict[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids of one sample, without image tokens.

    Args:
        prefix: BOS, instruction and indication, separator.
        suffix: the report, EOS last; empty for generation.
        prefix_cut: the prefix exceeded its limit.
        suffix_cut: the report exceeded its limit.
        pools: of the images before the prefix: each is averaged over squares of this many patches.
    """

    prefix: tuple[int, ...]
    suffix: tuple[int, ...]
    prefix_cut: bool
    suffix_cut: bool
    pools: tuple[int, ...] = (1,)


class PromptLayout:
    """Converts texts to token batches, and generated tokens to text and sections.

    Args:
        tokenizer: of the checkpoint.
        settings: of the prompt; saved with the adapter.
        image_tokens: tokens per image: 256, 1024 or 4096.
    """

    def __init__(self, tokenizer: Any, settings: PromptSettings, image_tokens: int) -> None:
        self.tokenizer = tokenizer
        self.settings = settings
        self.image_tokens = image_tokens
        self.pad_id, self.eos_id, self.bos_id, self.image_id, self.first_special_id = (
            int(tokenizer.convert_tokens_to_ids(token)) for token in (PAD, EOS, BOS, IMAGE, FIRST_SPECIAL)
        )
        self._separator = tuple(self._ids("\n"))
        if not self._separator:
            raise MismatchError("the tokenizer of this checkpoint drops the newline between prefix and suffix")

    def _ids(self, text: str) -> list[int]:
        # Special tokens spelt out in a text must not become tokens of the layout.
        encoded: list[int] = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return encoded

    def prefix(self, report: Report) -> str:
        """Instruction and, if the settings include it, the indication of a study; one line."""
        text = _one_line(self.settings.instruction)
        indication = _one_line(report.indication) if self.settings.indication else ""
        return f"{text} indication: {indication}" if indication else text

    def suffix(self, report: Report) -> str:
        """Sections of the settings that are not empty, each after its header; empty if none has text."""
        texts = ((name, _one_line(getattr(report, name))) for name in self.settings.sections)
        return " ".join(f"{name.upper()}: {text}" for name, text in texts if text)

    def context(self, roles: Sequence[ImageRole], prior: PriorStudy | None) -> str:
        """What the prefix says after the indication about images and the prior study; empty for one kind of image.

        ` images: frontal, lateral, prior. prior study, 120 days earlier: FINDINGS: ...`
        """
        if not self.settings.several_inputs:
            return ""
        text = f" images: {', '.join(roles)}." if len(roles) > 1 else ""
        if prior is None:
            return text
        days = prior.days
        interval = "" if days is None else ", same day" if days == 0 else f", {days} day{'s' * (days > 1)} earlier"
        shown = self.suffix(prior.report) if self.settings.prior != "image" else ""
        return f"{text} prior study{interval}: {shown}".rstrip()

    def pools(self, roles: Sequence[ImageRole]) -> tuple[int, ...]:
        """`Encoded.pools` of images with these roles: the frontal of the study itself is never averaged."""
        return tuple(1 if role is ImageRole.FRONTAL else self.settings.pool for role in roles)

    def tokens_of(self, encoded: Encoded) -> int:
        """Number of image tokens of a sample."""
        return sum(self.image_tokens // pool**2 for pool in encoded.pools)

    def encode(self, report: Report) -> Encoded:
        """Token ids of a sample with one image, truncated to the limits of the settings, always with EOS.

        Args:
            report: provides `indication` for the prefix and sections for the suffix.
        """
        return self.encode_texts(self.prefix(report), self.suffix(report))

    def encode_texts(self, prefix: str, suffix: str, context: str = "", *, pools: tuple[int, ...] = (1,)) -> Encoded:
        """`encode` for the texts that `prefix`, `suffix` and `context` return."""
        encoded = self.encode_prefix(prefix, context, pools=pools)
        ids = self._ids(suffix)
        room = self.settings.max_suffix_tokens - 1
        return replace(encoded, suffix=(*ids[:room], self.eos_id), suffix_cut=len(ids) > room)

    def encode_prefix(self, text: str, context: str = "", *, pools: tuple[int, ...] = (1,)) -> Encoded:
        """Token ids of any prefix for generation, truncated to the limits of the settings.

        Args:
            text: instruction and indication.
            context: of `context`; it has a limit of its own, so that a long report of the prior study does not displace
                the indication.
            pools: of the images.
        """
        prefix, rest = self._ids(_one_line(text)), self._ids(context) if context else []
        # BOS and separator count towards the limit of text positions.
        room = max(0, self.settings.max_prefix_tokens - 1 - len(self._separator))
        most = self.settings.max_prior_tokens
        return Encoded(
            prefix=(self.bos_id, *prefix[:room], *rest[:most], *self._separator),
            suffix=(),
            prefix_cut=len(prefix) > room or len(rest) > most,
            suffix_cut=False,
            pools=pools,
        )

    def collate_training(self, samples: Sequence[Encoded]) -> Batch:
        """Collate samples, with prefixes padded on the left and suffixes on the right.

        All suffixes then begin at the same position, and attention over the prefix needs no mask if no prefix is
        padded, see `attention.prefix_sdpa`.

        Returns:
            `input_ids` int64[B, L]; `attention_mask` int64[B, L], 0 on padding; `position_ids` int64[B, L], from 1;
            `token_type_ids` int64[B, L], 0 on image, prefix, separator and the padding before them, 1 on suffix and
            the padding after it; `labels` int64[B, L], the id on the suffix and `IGNORED` elsewhere (not shifted).
        """
        prefixes = [(self.image_id,) * self.tokens_of(s) + s.prefix for s in samples]
        border = max(map(len, prefixes))
        shape = (len(samples), border + max(len(s.suffix) for s in samples))
        batch = {
            "input_ids": torch.full(shape, self.pad_id),
            "attention_mask": torch.zeros(shape, dtype=torch.int64),
            "token_type_ids": torch.ones(shape, dtype=torch.int64),
            "labels": torch.full(shape, IGNORED),
        }
        batch["token_type_ids"][:, :border] = 0
        for row, (prefix, sample) in enumerate(zip(prefixes, samples, strict=True)):
            start, end = border - len(prefix), border + len(sample.suffix)
            batch["input_ids"][row, start:end] = torch.tensor(prefix + sample.suffix)
            batch["attention_mask"][row, start:end] = 1
            batch["labels"][row, border:end] = torch.tensor(sample.suffix, dtype=torch.int64)
        batch["position_ids"] = positions(batch["attention_mask"])
        return batch

    def collate_generation(self, samples: Sequence[Encoded]) -> Batch:
        """Collate prefixes, padded on the left so that all end at the same position.

        `generate` of transformers derives position ids from the attention mask; a direct forward pass needs
        `positions(attention_mask)`.

        Returns:
            `input_ids`, `attention_mask`, `token_type_ids`: int64[B, L], token types all 0.
        """
        batch = self.collate_training([replace(one, suffix=()) for one in samples])
        return {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids")}

    def decode(self, ids: Sequence[int]) -> str:
        """Text of generated ids up to EOS, with location and segment tokens and without other special tokens."""
        kept = list(ids)
        if self.eos_id in kept:
            kept = kept[: kept.index(self.eos_id)]
        text = ""
        for located, run in groupby(kept, key=lambda i: self.first_special_id <= i < self.image_id):
            if located:  # `decode` may skip them as special tokens
                text += "".join(self.tokenizer.convert_ids_to_tokens(list(run)))
            else:
                text += self.tokenizer.decode([i for i in run if i < self.first_special_id], skip_special_tokens=True)
        return text.strip()

    def suppressed(self, vocabulary_rows: int, *, locations: bool = False) -> list[int]:
        """Ids that must not be generated: padding, BOS, locations, segments, image, untrained rows of the embeddings.

        Args:
            vocabulary_rows: number of rows of the embeddings, the last of which have no token.
            locations: allow locations and segments, for texts that are not reports.
        """
        first = self.image_id if locations else self.first_special_id
        return [self.pad_id, self.bos_id, *range(first, vocabulary_rows)]

    def parse(self, text: str) -> tuple[str, str]:
        """Findings and impression of a generated text.

        Text before the first header belongs to the first section of the settings, so no generated text is lost.
        """
        parts = split_generated(text, headers_of=("findings", "impression"))
        first = self.settings.sections[0]
        parts[first] = f"{parts.pop('', '')} {parts.get(first, '')}"
        return _one_line(parts.get("findings", "")), _one_line(parts.get("impression", ""))


def pixel_values(images: Sequence[npt.NDArray[np.uint8]]) -> torch.Tensor:
    """Convert 8-bit grey images to inputs of the vision tower.

    Args:
        images: uint8[R, R] each.

    Returns:
        float32[B, 3, R, R] in [-1, 1], the three channels equal.
    """
    grey = torch.from_numpy(np.stack(images))
    return to_pixels(grey)


def to_pixels(grey: torch.Tensor) -> torch.Tensor:
    """Convert uint8[B, R, R] to float32[B, 3, R, R] in [-1, 1]."""
    return (grey.to(torch.float32) / 127.5 - 1.0).unsqueeze(1).expand(-1, 3, -1, -1)


def pooled(features: torch.Tensor, pools: Sequence[int]) -> torch.Tensor:
    """Average projected image features over squares of neighbouring patches.

    Args:
        features: real[N, T, width], T the square of the number of patches along a side, row by row.
        pools: side of the square for each image, in patches; 1 keeps an image as it is.

    Returns:
        `features` if all are kept; otherwise real[1, sum of T / pool^2, width], one image after the other.
    """
    if all(pool == 1 for pool in pools):
        return features
    side, width = math.isqrt(features.shape[1]), features.shape[2]
    parts = []
    for image, pool in zip(features, pools, strict=True):
        squares = image.view(side // pool, pool, side // pool, pool, width)
        parts.append(image if pool == 1 else squares.mean((1, 3)).view(-1, width))
    return torch.cat(parts)[None]


def positions(attention_mask: torch.Tensor) -> torch.Tensor:
    """Position ids int64[B, L] for a direct forward pass; they start from 1 at the first position without padding.

    Args:
        attention_mask: int64[B, L], 0 on padding.
    """
    return attention_mask.cumsum(-1).clamp(min=1)


def _one_line(text: str) -> str:
    """Replace line breaks by spaces: a newline at the end of the prefix would merge with the separator."""
    return " ".join(text.split())
