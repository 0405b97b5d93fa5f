"""Published text encoders from local folders, for the metrics that compare embeddings.

Only configuration, tokenizer and tensors are read: transformers loads safetensors, or a pickle of tensors only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cxrreport.errors import WeightsError
from cxrreport.model.checkpoints import download, quiet
from cxrreport.settings import EvaluateSettings, weights_folder
from cxrreport.storage.atomic_files import file_sha256

_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab*")
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_SPECIAL = 2
"""Tokens around every text."""
_ATTENDED = 1 << 20
"""Most pairs of tokens of a batch where attention holds all of them: 50 MB for each of several tables of 12 heads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoder:
    """A published encoder.

    Args:
        folder: its folder below that of all weights.
        repository: repository on the hub.
        entry: name of `cxrreport weights` that downloads it.
        files: patterns of the files that it needs.
    """

    folder: str
    repository: str
    entry: str
    files: tuple[str, ...] = ("config.json", "model.safetensors", "merges.txt", *_TOKENIZER)

    def find(self, settings: EvaluateSettings) -> Path:
        """The folder that the settings name; missing files are downloaded if `download` is set.

        Raises:
            WeightsError: no folder is named, files are missing, or the download failed.
        """
        root = settings.encoders or weights_folder()
        if root is not None:
            folder = root / self.folder
            if settings.download and missing(folder):
                download(self.repository, None, files=self.files, folder=folder)
            if not missing(folder):
                return folder
        lacking = f"missing {', '.join(missing(root / self.folder))} in {root / self.folder}" if root else "no folder"
        where = root or "DIR"
        raise WeightsError(
            f"{self.repository} was not found: {lacking}. Run `cxrreport weights {self.entry} --weights {where}` on a "
            f"machine with a network, and then `cxrreport --weights {where} evaluate`, or set `encoders` to that folder"
        )


def missing(folder: Path) -> list[str]:
    """The parts of an encoder that `folder` lacks."""
    wanted = {
        "config.json": ("config.json",),
        "tokenizer.json": ("tokenizer.json", "vocab.txt", "vocab.json", "spm.model"),
        "model.safetensors": _WEIGHTS,
    }
    return [name for name, either in wanted.items() if not any((folder / file).is_file() for file in either)]


def fingerprint(folder: Path) -> str:
    """SHA-256 over the names and contents of all files in `folder` that results depend on, hex."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.suffix in (".json", ".txt", ".safetensors", ".bin", ".model"):
            digest.update(f"{path.name} {file_sha256(path)}\n".encode())
    return digest.hexdigest()


class LoadedEncoder:
    """A tokenizer with its model.

    Args:
        folder: as returned by `Encoder.find`.
        kind: name of an auto class of transformers.
        layers: number of layers to keep; `None` for all.
        longest: most tokens of a text; `None` for what the model can read.

    Raises:
        WeightsError: the files do not fit each other or are not safe to load.
    """

    def __init__(
        self, folder: Path, kind: str = "AutoModel", *, layers: int | None = None, longest: int | None = None
    ) -> None:
        import transformers

        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        try:
            with quiet():
                config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
                if layers is not None:
                    if not 0 < layers <= config.num_hidden_layers:
                        raise ValueError(f"{config.num_hidden_layers} layers")
                    config.num_hidden_layers = layers
                # Byte-level tokenizers read the first word like the others, as bert-score does.
                space = {"add_prefix_space": True} if config.model_type in ("roberta", "gpt2") else {}
                self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, **space)
                model: Any = getattr(transformers, kind).from_pretrained(
                    folder, config=config, local_files_only=True, dtype=torch.float32
                )
        except Exception as error:  # transformers raises anything for files that do not fit
            raise WeightsError(
                f"{folder}: not an encoder that can be used ({type(error).__name__}: {str(error)[:200]}); download it "
                "again"
            ) from error
        self.model = model.to(self.device).eval()
        # RoBERTa counts positions from behind its padding id.
        positions = config.max_position_embeddings - (_SPECIAL if config.model_type == "roberta" else 0)
        self._eager = config._attn_implementation == "eager"
        self._longest = min(longest or positions, positions, self.tokenizer.model_max_length)

    def ids(self, text: str) -> list[int]:
        """Token ids with the special tokens, cut to the longest text."""
        ids: list[int] = self.tokenizer(text.strip(), truncation=True, max_length=self._longest)["input_ids"]
        return ids

    @torch.inference_mode()
    def outputs(self, rows: Sequence[Sequence[int]], *, batch: int = 16) -> Iterator[tuple[int, torch.Tensor]]:
        """The first output of the model for each row, as (index of the row, float32[tokens, ...]), short rows first.

        Outputs are on the CPU and without padding. They are a part of those of their batch: who keeps one keeps all of
        them, unless it is copied.
        """
        order = sorted(range(len(rows)), key=lambda place: len(rows[place]))
        first = 0
        while first < len(order):
            part = order[first : first + batch]
            if self._eager:
                part = part[: max(1, _ATTENDED // len(rows[part[-1]]) ** 2)]
            first += len(part)
            ids = torch.nn.utils.rnn.pad_sequence(
                [torch.tensor(rows[place]) for place in part],
                batch_first=True,
                padding_value=self.tokenizer.pad_token_id or 0,
            )
            mask = torch.arange(ids.shape[1]) < torch.tensor([len(rows[place]) for place in part])[:, None]
            states = self.model(input_ids=ids.to(self.device), attention_mask=mask.long().to(self.device))[0].cpu()
            for place, state in zip(part, states, strict=True):
                yield place, state[: len(rows[place])]
