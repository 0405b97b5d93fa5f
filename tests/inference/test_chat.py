"""Models of other families give the texts of a plain transformers script, in shards that resume."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from chat_models import FAMILIES, small_model, write_model
from generation import predictions
from PIL import Image

from cxrreport.errors import MismatchError, SettingsError
from cxrreport.evaluation.inputs import tables
from cxrreport.inference.chat import ChatEngine, ChatLayout, load_chat_model, read_template
from cxrreport.inference.chat.template import ChatTemplate
from cxrreport.inference.decoding import Request
from cxrreport.model.checkpoints import LoadedModel
from cxrreport.records import Report
from cxrreport.settings import CheckpointSettings, GenerateSettings

TEMPLATE = ChatTemplate(
    system="You are a radiologist.",
    user="Describe.{% if indication %} Indication: {{ indication }}{% endif %}",
    max_images=2,
)
NEW = 12


def requests(make_studies: Any, count: int) -> list[Request]:
    studies = make_studies(20)
    found = []
    for number, study in enumerate(studies.studies()[:count]):
        images = tuple(studies.image(one) for one in (study.image_ids[0], "other")[: 1 + number % 2])
        found.append(Request(study_id=study.study_id, images=images, report=study.report))
    return found


def loaded_of(model: Any, processor: Any) -> LoadedModel:
    return LoadedModel(
        model=model,
        tokenizer=processor,
        name="small",
        revision=None,
        fingerprint="f",
        resolution=56,
        image_tokens=0,
        softcap=False,
        device=torch.device("cpu"),
        dtype=torch.float32,
        synthetic=False,
    )


def plain_script(model: Any, processor: Any, request: Request) -> tuple[str, list[float]]:
    """What a user of transformers writes, with the log-probability of each new token."""
    words = "Describe." + (f" Indication: {request.report.indication}" if request.report.indication else "")
    images = [{"type": "image", "image": Image.fromarray(one).convert("RGB")} for one in request.images]
    messages = [
        {"role": "system", "content": [{"type": "text", "text": "You are a radiologist."}]},
        {"role": "user", "content": [*images, {"type": "text", "text": words}]},
    ]
    inputs = processor.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    with torch.inference_mode():
        found = model.generate(
            **inputs, max_new_tokens=NEW, do_sample=False, return_dict_in_generate=True, output_logits=True
        )
    ids = found.sequences[0, inputs["input_ids"].shape[1] :]
    scores = torch.cat(found.logits).float().log_softmax(dim=-1).gather(1, ids[:, None])[:, 0]
    return processor.decode(ids, skip_special_tokens=True).strip(), scores.tolist()


@pytest.mark.stock("transformers")
@pytest.mark.parametrize("family", FAMILIES)
def test_texts_are_those_of_a_plain_script(family: str, make_studies: Any) -> None:
    model, processor = small_model(family)
    wanted = requests(make_studies, 5)
    expected = [plain_script(model, processor, request) for request in wanted]
    assert len({text for text, _ in expected}) > 1
    for batch_size in (1, 2):
        engine = ChatEngine(
            loaded_of(model, processor), ChatLayout(TEMPLATE), batch_size=batch_size, max_new_tokens=NEW
        )
        steps: list[int] = []
        found = engine.generate(wanted, steps.append)
        assert steps[-1] == 5
        for one, (text, scores), request in zip(found, expected, wanted, strict=True):
            assert one.text == text and one.study_id == request.study_id
            assert len(one.image_sha256) == len(request.images)
            assert one.mean_logprob == pytest.approx(sum(scores[: one.tokens]) / one.tokens, abs=1e-4)
            assert one.min_logprob == pytest.approx(min(scores[: one.tokens]), abs=1e-4)
            assert one.finished == (one.ids[-1] == 1) and one.tokens <= NEW


@pytest.mark.parametrize("family", ["gemma3", "llava"])
def test_a_checkpoint_is_read_from_its_folder(family: str, tmp_path: Path, make_studies: Any) -> None:
    settings = CheckpointSettings(name=str(write_model(family, tmp_path / "model")), precision="float32")
    loaded = load_chat_model(settings, resolution=56)
    (request,) = requests(make_studies, 1)
    engine = ChatEngine(loaded, ChatLayout(TEMPLATE), batch_size=1, max_new_tokens=NEW)
    assert engine.generate([request])[0].text == plain_script(*small_model(family), request)[0]
    before = loaded.fingerprint
    (tmp_path / "model" / "chat_template.jinja").write_text("another")
    assert load_chat_model(settings, resolution=56).fingerprint != before


def test_what_transformers_cannot_load_is_refused(tmp_path: Path) -> None:
    folder = write_model("llava", tmp_path / "model")
    (folder / "model.safetensors").rename(folder / "model.bin")
    with pytest.raises(MismatchError, match="not an image-text-to-text model that transformers loads without remote"):
        load_chat_model(CheckpointSettings(name=str(folder), precision="float32"), resolution=56)
    with pytest.raises(SettingsError, match="nf4 needs engine: torch"):
        load_chat_model(CheckpointSettings(name=str(folder), precision="nf4"), resolution=56)


def test_a_run_is_in_shards_and_resumes(generate_into: Any, tmp_path: Path, make_studies: Any) -> None:
    checkpoint = CheckpointSettings(name=str(write_model("llava", tmp_path / "model")), precision="float32")
    loaded, layout = load_chat_model(checkpoint, resolution=56), ChatLayout(TEMPLATE)
    settings = GenerateSettings(
        input=Path("data"),
        output=tmp_path / "out",
        engine="transformers",
        checkpoint=checkpoint,
        prompt_template=Path("p.yaml"),
        batch_size=4,
        shard_size=5,
        max_new_tokens=NEW,
    )
    first = generate_into(settings, make_studies(20), loaded, layout)
    texts = {study: one.text for study, one in predictions(tmp_path / "out").items()}
    assert first.studies == len(texts) == 18
    record = json.loads((tmp_path / "out" / "generate.json").read_text())
    (tmp_path / "out" / "generate.json").write_text(json.dumps(record | {"finished": False}))
    (tmp_path / "out" / "shards" / "00000.jsonl").unlink()
    again = generate_into(settings, make_studies(20), loaded, layout)
    assert again.resumed == 13
    assert {study: one.text for study, one in predictions(tmp_path / "out").items()} == texts
    record = json.loads((tmp_path / "out" / "generate.json").read_text())
    assert record["inputs"]["prompt"] | {"indication": True, "max_images": 2} == record["inputs"]["prompt"]
    read = tables.read_predictions(tmp_path / "out", "findings")
    assert read.inputs == "2 image of 56 pixels and indication"


def test_prompt_files(tmp_path: Path) -> None:
    path = tmp_path / "prompt.yaml"
    path.write_text("user: 'Report. {{ findings }}'\n")
    with pytest.raises(SettingsError, match="'findings' is undefined; use indication, comparison, technique"):
        read_template(path)
    path.write_text("[1]")
    with pytest.raises(SettingsError, match=r"prompt\.yaml cannot be read as YAML with the key user"):
        read_template(path)
    assert not ChatTemplate(user="Report.").indication and TEMPLATE.indication
    # The sandbox gives a template no way to anything else.
    path.write_text("user: \"{{ ''.__class__.__mro__ }}\"\n")
    with pytest.raises(SettingsError, match="unsafe"):
        read_template(path)


@pytest.mark.parametrize(
    ("text", "changes", "parsed"),
    [
        ("Clear lungs.", {}, ("Clear lungs.", "")),
        ("Clear lungs.", {"section": "impression"}, ("", "Clear lungs.")),
        ("FINDINGS: Clear. IMPRESSION: Normal.", {}, ("Clear.", "Normal.")),
        ("<think>FINDINGS: big heart</think> Findings: Clear.", {"after": "</think>"}, ("Clear.", "")),
        ("<think>heart</think><answer>Edema</answer> .", {"after": "<answer>", "before": "</answer>"}, ("Edema", "")),
    ],
)
def test_sections_of_answers(text: str, changes: dict[str, Any], parsed: tuple[str, str]) -> None:
    layout = ChatLayout(ChatTemplate(user="Report.", **changes))
    assert layout.parse(layout.answer(text)) == parsed


def test_a_prompt_never_has_the_reference() -> None:
    report = Report(indication="cough", findings="secret", impression="secret")
    (message,) = ChatLayout(ChatTemplate(user="{{ indication }}", images="last")).messages(report, ["image"])
    assert message["content"] == [{"type": "text", "text": "cough"}, {"type": "image", "image": "image"}]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt_template": None}, "belong together"),
        ({"checkpoint": None}, "checkpoint: null"),
        ({"adapter": Path("a")}, "does not work with adapter"),
        ({"prompt": {"views": "frontal+lateral"}}, "does not work with prompt"),
        ({"decoding": {"method": "beam"}}, "decoding.method: beam"),
        ({"baseline": "nearest"}, "baseline: nearest"),
        ({"quantize": "int8"}, "needs engine: openvino"),
    ],
)
def test_settings_that_do_not_fit(changes: dict[str, Any], message: str) -> None:
    values = {
        "input": Path("i"),
        "output": Path("o"),
        "engine": "transformers",
        "checkpoint": {"name": "owner/model"},
        "prompt_template": Path("p.yaml"),
    }
    GenerateSettings(**values)
    with pytest.raises(ValueError, match=message):
        GenerateSettings(**values | changes)
