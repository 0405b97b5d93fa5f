"""The language model that proposes edits: random weights, with and without a chat template."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from cxrreport.errors import WeightsError
from cxrreport.model.sentence_editor import ModelEditor
from cxrreport.settings import RewriterSettings

WORDS = [
    "<pad>",
    "<eos>",
    "<unk>",
    "Stable",
    "cardiomegaly",
    "effusion",
    "No",
    "new",
    ".",
    "user",
    "Edit",
    ":",
    "small",
]
TEMPLATE = "{% for m in messages %}user {{ m['content'] }}{% endfor %}"


def write_model(folder: Path, *, template: str | None = None, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", unk_token="<unk>")
    fast.chat_template = template
    fast.save_pretrained(folder)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(WORDS), eos_token_id=1, **sizes)).save_pretrained(folder)
    return folder


def silent(_done: int, _total: int, _label: str) -> None:
    """Ignore progress."""


SENTENCES = ["Stable cardiomegaly .", "No new effusion . Stable small effusion .", "Stable cardiomegaly .", "effusion"]


@pytest.mark.parametrize("template", [None, TEMPLATE])
def test_a_batch_gives_the_answers_of_single_sentences(tmp_path: Path, template: str | None) -> None:
    folder = write_model(tmp_path, template=template)
    given = RewriterSettings(model=str(folder), prompt="Edit : {sentence}", precision="float32", device="cpu")
    together = ModelEditor(given).edit(SENTENCES, silent)
    alone = ModelEditor(given.model_copy(update={"batch_size": 1}))
    assert together == [alone.edit([sentence], silent)[0] for sentence in SENTENCES]
    assert together[0] == together[2] and all("\n" not in answer and "<eos>" not in answer for answer in together)
    assert ModelEditor(given).edit([], silent) == []


def test_answers_are_bounded_and_not_asked_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    editor = ModelEditor(RewriterSettings(model=str(write_model(tmp_path)), prompt="{sentence}", device="cpu"))
    limits = []
    generate = editor._model.generate

    def counting(**arguments: object) -> object:
        limits.append(arguments["generation_config"].max_new_tokens)  # type: ignore[attr-defined]
        return generate(**arguments)

    monkeypatch.setattr(editor._model, "generate", counting)
    first = editor.edit(SENTENCES, silent)
    assert editor.edit(SENTENCES, silent) == first
    assert limits == [8 + 8]


def test_memory_that_runs_out_halves_the_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    editor = ModelEditor(RewriterSettings(model=str(write_model(tmp_path)), prompt="{sentence}", device="cpu"))
    generate = editor._model.generate

    def small(**arguments: object) -> object:
        if len(arguments["input_ids"]) > 1:  # type: ignore[arg-type]
            raise torch.OutOfMemoryError
        return generate(**arguments)

    expected = editor.edit(SENTENCES, silent)
    editor._answers.clear()
    monkeypatch.setattr(editor._model, "generate", small)
    assert editor.edit(SENTENCES, silent) == expected


def test_the_digest_is_of_weights_tokenizer_and_prompt(tmp_path: Path) -> None:
    folders = [write_model(tmp_path / "a"), write_model(tmp_path / "b", seed=1), write_model(tmp_path / "c")]
    digests = [ModelEditor(RewriterSettings(model=str(folder), device="cpu")).digest for folder in folders]
    assert digests[0] == digests[2] != digests[1]
    assert ModelEditor(RewriterSettings(model=str(folders[0]), prompt="{sentence}")).digest != digests[0]


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(WeightsError, match=str(tmp_path)):
        ModelEditor(RewriterSettings(model=str(tmp_path)))
