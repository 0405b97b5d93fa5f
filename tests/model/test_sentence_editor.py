"""The language model that proposes edits: architectures, chat templates, batches, memory, and stored answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from random_causal_model import KINDS, write_model

from cxrreport.errors import SettingsError, WeightsError
from cxrreport.model.sentence_editor import ModelEditor
from cxrreport.settings import RewriterSettings

SENTENCES = ["Stable cardiomegaly .", "No new effusion . Stable small effusion .", "Stable cardiomegaly .", "effusion"]


def silent(_done: int, _total: int, _label: str) -> None:
    """Ignore progress."""


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., ModelEditor]:
    def make_editor(kind: str = "llama", *, folder: Path | None = None, **changes: Any) -> ModelEditor:
        values = {"model": str(folder or write_model(tmp_path / kind, kind)), "prompt": "Edit : {sentence}"}
        values |= {"precision": "float32", "device": "cpu"} | changes
        return ModelEditor(RewriterSettings.model_validate(values), tmp_path / "answers.sqlite")

    return make_editor


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_gives_the_answers_of_single_sentences(
    make: Callable[..., ModelEditor], kind: str, tmp_path: Path
) -> None:
    together = make(kind).edit(SENTENCES, silent)
    alone = make(kind, batch_size=1, cache=tmp_path / "other.sqlite")
    assert together == [alone.edit([sentence], silent)[0] for sentence in SENTENCES]
    assert together[0] == together[2] and all("\n" not in answer and "<eos>" not in answer for answer in together)
    assert make(kind).edit([], silent) == []


def test_the_chat_template_frames_the_prompt(make: Callable[..., ModelEditor]) -> None:
    seen = []
    for kind in ("qwen3", "gemma2", "llama"):
        editor = make(kind)
        seen.append(editor._prompt(editor._loaded[0], "No effusion ."))
    assert seen[0] == "<turn>user Edit : No effusion .<end><turn>model "
    assert seen[1] == "<bos><turn>user\nEdit : No effusion .<end>\n<turn>model"
    assert seen[2] == "Edit : No effusion ."


def test_answers_are_bounded_and_kept(make: Callable[..., ModelEditor], monkeypatch: pytest.MonkeyPatch) -> None:
    """A stopped run resumes after its last batch, and a finished one loads no model."""
    editor = make(batch_size=2)
    model = editor._loaded[1]
    limits: list[int] = []
    steps: list[tuple[int, int, str]] = []
    generate = model.generate

    def stops(**arguments: Any) -> Any:
        if len(limits) == 1:
            raise KeyboardInterrupt
        limits.append(arguments["generation_config"].max_new_tokens)
        return generate(**arguments)

    monkeypatch.setattr(model, "generate", stops)
    with pytest.raises(KeyboardInterrupt):
        editor.edit(SENTENCES, lambda *step: steps.append(step))
    assert limits == [8 + 8] and steps == [(0, 3, "sentences"), (2, 3, "sentences")]
    again = make(batch_size=2)
    answers = again.edit(SENTENCES, lambda *step: steps.append(step))
    assert steps[2:] == [(2, 3, "sentences"), (3, 3, "sentences")]
    finished = make(batch_size=2)
    assert finished.edit(SENTENCES, silent) == answers and "_loaded" not in vars(finished)


def test_running_out_of_memory_halves_the_batch(
    make: Callable[..., ModelEditor], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    expected = make().edit(SENTENCES, silent)
    editor = make(cache=tmp_path / "other.sqlite")
    model = editor._loaded[1]
    generate, most = model.generate, 1

    def small(**arguments: Any) -> Any:
        if len(arguments["input_ids"]) > most:
            raise torch.OutOfMemoryError
        return generate(**arguments)

    monkeypatch.setattr(model, "generate", small)
    assert editor.edit(SENTENCES, silent) == expected
    most = 0
    with pytest.raises(SettingsError, match="smaller model"):
        editor.edit(["small effusion"], silent)


def test_the_digest_is_of_weights_configuration_tokenizer_and_prompt(
    make: Callable[..., ModelEditor], tmp_path: Path
) -> None:
    first = make().digest
    assert make().digest == first == make(folder=write_model(tmp_path / "copy")).digest
    others = {make(folder=write_model(tmp_path / "weights", seed=1)).digest, make(prompt="{sentence}").digest}
    others |= {make("qwen3").digest, make(precision="bfloat16").digest}
    config = tmp_path / "copy" / "config.json"
    config.write_text(config.read_text().replace('"rms_norm_eps": 1e-06', '"rms_norm_eps": 1e-05'))
    others.add(make(folder=tmp_path / "copy").digest)
    assert len(others - {first}) == 5


def test_a_template_that_fails_is_an_error_without_the_sentence(make: Callable[..., ModelEditor]) -> None:
    editor = make()
    editor._loaded[0].chat_template = "{{ raise_exception('no: ' + messages[0].content) }}"
    with pytest.raises(WeightsError, match="its chat template") as caught:
        editor.edit(["No effusion ."], silent)
    assert "effusion" not in str(caught.value)


@pytest.mark.parametrize("kind", ["qwen3", "gpt2"])
def test_a_prompt_that_is_too_long_is_an_error(make: Callable[..., ModelEditor], kind: str) -> None:
    with pytest.raises(SettingsError, match=r"prompt and answer need \d{4} tokens, and the model reads \d+"):
        make(kind, prompt="small " * 1500 + "{sentence}").edit(SENTENCES, silent)


def test_a_folder_without_a_model_is_named(make: Callable[..., ModelEditor], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.json").write_text("{}")
    with pytest.raises(WeightsError, match=str(tmp_path)):
        make(folder=tmp_path / "empty").edit(["Stable ."], silent)


def test_a_model_with_custom_code_is_refused(make: Callable[..., ModelEditor], tmp_path: Path) -> None:
    folder = write_model(tmp_path / "custom")
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(
        config.replace('"llama"', '"custom"').replace("{", '{"auto_map": {"AutoModelForCausalLM": "code.Model"},', 1)
    )
    (folder / "code.py").write_text("raise SystemExit('this code ran')")
    with pytest.raises(WeightsError, match="transformers can load"):
        make(folder=folder).edit(["Stable ."], silent)
