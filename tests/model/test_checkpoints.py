"""The table, and what a folder must hold to be loaded."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError
from safetensors.torch import load_file, save_file
from transformers import PaliGemmaForConditionalGeneration

from cxrreport import assets
from cxrreport.errors import MismatchError, SettingsError, WeightsError
from cxrreport.model.adapters import attach
from cxrreport.model.catalogue import CHECKPOINTS
from cxrreport.model.checkpoints import files, fingerprint, load
from cxrreport.model.checkpoints.weights import resize_position_embeddings
from cxrreport.settings import CheckpointSettings, LoraSettings


def settings(folder: Path | str, **values: Any) -> CheckpointSettings:
    return CheckpointSettings.model_validate({"name": str(folder), "precision": "float32", "device": "cpu"} | values)


@pytest.fixture
def copy(checkpoint_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint_folder, tmp_path / "copy"))


def published_name(name: str) -> str:
    """Of a weight, in the published files; they are from before transformers 4.52."""
    name = re.sub(r"^model\.vision_tower\.(vision_model\.)?", "vision_tower.vision_model.", name)
    return name.replace("model.language_model.", "language_model.model.").removeprefix("model.")


def published_names(layers: int) -> set[str]:
    """All that the published files hold; the head is the table of embeddings."""
    names = {"multi_modal_projector.linear.weight", "multi_modal_projector.linear.bias"}
    language, vision = "language_model.model", "vision_tower.vision_model"
    names |= {f"{language}.embed_tokens.weight", f"{language}.norm.weight"}
    parts = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"]
    parts += ["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]
    parts += ["input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm"]
    names |= {f"{language}.layers.{layer}.{part}.weight" for layer in range(layers) for part in parts}
    parts = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj"]
    parts += ["mlp.fc1", "mlp.fc2", "layer_norm1", "layer_norm2"]
    both = [f"{vision}.encoder.layers.{layer}.{part}" for layer in range(27) for part in parts]
    both += [f"{vision}.embeddings.patch_embedding", f"{vision}.post_layernorm"]
    names |= {f"{part}.{kind}" for part in both for kind in ("weight", "bias")}
    return names | {f"{vision}.embeddings.position_embedding.weight"}


@pytest.mark.parametrize(
    ("size", "billions", "lora_millions", "modules"),
    [("3b", 3.04, 20.8, 182), ("10b", 9.67, 54.0, 294), ("28b", 27.7, 114, 322)],
)
@pytest.mark.parametrize(("resolution", "tokens"), [(224, 256), (448, 1024), (896, 4096)])
def test_the_published_nine_on_the_meta_device(
    size: str, billions: float, lora_millions: float, modules: int, resolution: int, tokens: int
) -> None:
    entry = CHECKPOINTS[f"paligemma2-{size}-pt-{resolution}"]
    assert entry.source == f"google/paligemma2-{size}-pt-{resolution}"
    assert entry.image_tokens == tokens
    with torch.device("meta"):
        model = PaliGemmaForConditionalGeneration(entry.config())
    assert model.config.text_config.num_image_tokens == tokens
    assert model.num_parameters() / 1e9 == pytest.approx(billions, rel=0.005)
    layers = modules // 7
    assert {published_name(name) for name in model.state_dict()} - {"lm_head.weight"} == published_names(layers)
    if resolution == 224:
        adapted, names = attach(model, LoraSettings(rank=16))
        trained = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
        assert trained / 1e6 == pytest.approx(lora_millions, rel=0.005)
        assert len(names) == modules


def test_loads_ready_to_run(checkpoint_folder: Path) -> None:
    loaded = load(settings(checkpoint_folder, precision="bfloat16"), resolution=224)
    assert (loaded.resolution, loaded.image_tokens, loaded.dtype) == (224, 16, torch.bfloat16)
    assert loaded.model.dtype == torch.bfloat16
    assert not loaded.model.training
    assert not any(p.requires_grad for p in loaded.model.parameters())
    assert loaded.model.generation_config.eos_token_id == 1
    assert loaded.model.generation_config.cache_implementation is None
    assert not loaded.synthetic


def test_files_with_the_published_names_load(copy: Path) -> None:
    expected = load(settings(copy), resolution=224).model.state_dict()
    weights = {published_name(name): t.contiguous() for name, t in expected.items() if name != "lm_head.weight"}
    assert any(name.startswith("language_model.model.layers.") for name in weights)
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    found = load(settings(copy), resolution=224).model.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.items())


def test_generation_settings_of_the_hub_are_replaced(copy: Path) -> None:
    (copy / "generation_config.json").write_text(
        json.dumps({"eos_token_id": [1, 107], "cache_implementation": "hybrid", "do_sample": True})
    )
    generation = load(settings(copy), resolution=224).model.generation_config
    assert (generation.eos_token_id, generation.cache_implementation, generation.do_sample) == (1, None, False)


def test_another_resolution_is_a_mismatch_with_a_remedy(checkpoint_folder: Path) -> None:
    with pytest.raises(MismatchError, match=r"224 x 224 pixels, the images are 896 x 896.*resolution: 224"):
        load(settings(checkpoint_folder), resolution=896)


def test_a_published_name_offers_its_other_resolution(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = CHECKPOINTS["paligemma2-3b-pt-224"].config().to_dict()
    (tmp_path / "config.json").write_text(json.dumps(config, default=str))
    monkeypatch.setattr(files, "snapshot_download", lambda *_, **__: str(tmp_path))
    with pytest.raises(MismatchError, match="use checkpoint 'paligemma2-3b-pt-896'"):
        load(settings("paligemma2-3b-pt-224"), resolution=896)
    with pytest.raises(MismatchError, match=r"text_config.hidden_size is 2304, but the published model has 3584"):
        load(settings("paligemma2-10b-pt-224"), resolution=224)


def test_interpolated_positions(checkpoint_folder: Path) -> None:
    loaded = load(settings(checkpoint_folder), resolution=224)
    embedding = loaded.model.model.vision_tower
    before = next(m for m in embedding.modules() if hasattr(m, "position_embedding")).position_embedding.weight.clone()
    resize_position_embeddings(loaded.model, 448)
    after = next(m for m in embedding.modules() if hasattr(m, "position_embedding")).position_embedding.weight
    assert (before.shape[0], after.shape[0]) == (16, 64)
    # Averages over blocks of 2 x 2 are close to the original table.
    pooled = after.reshape(4, 2, 4, 2, -1).mean((1, 3)).reshape(16, -1)
    assert torch.corrcoef(torch.stack([pooled.flatten(), before.flatten()]))[0, 1] > 0.9
    assert loaded.model.config.text_config.num_image_tokens == 64
    with torch.no_grad():
        features = loaded.model.model.get_image_features(torch.zeros(1, 3, 448, 448)).pooler_output
    assert features.shape == (1, 64, 32)
    with pytest.raises(MismatchError, match="multiple"):
        resize_position_embeddings(loaded.model, 300)


def test_the_projects_own_at_another_resolution(
    monkeypatch: pytest.MonkeyPatch, checkpoint_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(checkpoint_folder, tmp_path / CHECKPOINTS["tiny"].source)
    monkeypatch.setattr(assets, "ASSETS", tmp_path)
    loaded = load(settings("tiny-896"), resolution=896)
    assert (loaded.resolution, loaded.image_tokens, loaded.synthetic) == (896, 256, True)
    with pytest.raises(MismatchError, match="tiny-896"):
        load(settings("tiny"), resolution=896)


def test_no_pickle(copy: Path) -> None:
    weights = load_file(copy / "model.safetensors")
    (copy / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"no \*\.safetensors"):
        load(settings(copy), resolution=224)
    torch.save(weights, copy / "pytorch_model.bin")
    with pytest.raises(WeightsError, match="pickle"):
        load(settings(copy), resolution=224)


def test_missing_and_damaged_weights(copy: Path) -> None:
    path = copy / "model.safetensors"
    weights = load_file(path)
    dropped = next(name for name in weights if "q_proj" in name)
    save_file({name: tensor for name, tensor in weights.items() if name != dropped}, path, metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=r"1 weights are missing.*q_proj"):
        load(settings(copy), resolution=224)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(WeightsError, match="copy"):
        load(settings(copy), resolution=224)


def test_another_architecture(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    config["text_config"]["model_type"] = "gemma"
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(MismatchError, match="'paligemma' with language model 'gemma'"):
        load(settings(copy), resolution=224)
    (copy / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(MismatchError, match="'bert'"):
        load(settings(copy), resolution=224)
    (copy / "config.json").write_text("{")
    with pytest.raises(WeightsError, match=r"config\.json"):
        load(settings(copy), resolution=224)


def test_tokenizer_of_another_model(copy: Path) -> None:
    text = (copy / "tokenizer.json").read_text()
    (copy / "tokenizer.json").write_text(text.replace("<image>", "<picture>"))
    with pytest.raises(MismatchError, match="<image>"):
        load(settings(copy), resolution=224)
    (copy / "tokenizer.json").write_text("{}")
    with pytest.raises(WeightsError, match="damaged"):
        load(settings(copy), resolution=224)
    (copy / "tokenizer.json").unlink()
    with pytest.raises(WeightsError, match="missing"):
        load(settings(copy), resolution=224)


def test_names_that_do_not_resolve(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="paligemma2-3b-pt-896"):
        load(settings("paligemma3"), resolution=224)
    file = tmp_path / "weights"
    file.write_text("")
    with pytest.raises(WeightsError, match="a file"):
        load(settings(file), resolution=224)
    with pytest.raises(WeightsError, match="neither a folder"):
        load(settings(tmp_path / "absent"), resolution=224)


class Response:
    """The part of an HTTP response that errors of the hub read."""

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        self.status_code = 403
        self.request = None


@pytest.mark.parametrize(
    "error",
    [
        GatedRepoError("gated", response=Response()),  # type: ignore[arg-type]
        RepositoryNotFoundError("unknown", response=Response()),  # type: ignore[arg-type]
        LocalEntryNotFoundError("offline"),
        OSError("no route"),
    ],
)
def test_without_access_the_error_names_what_is_missing_and_where_to_get_it(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise error

    monkeypatch.setattr(files, "snapshot_download", refuse)
    with pytest.raises(WeightsError) as caught:
        load(settings("paligemma2-3b-pt-896"), resolution=896)
    message = str(caught.value)
    for part in ("google/paligemma2-3b-pt-896", "licence", "huggingface.co/", "HF_TOKEN", "local folder"):
        assert part in message


def test_a_local_folder_does_not_contact_the_hub(monkeypatch: pytest.MonkeyPatch, checkpoint_folder: Path) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise AssertionError("asked the hub")

    monkeypatch.setattr(files, "snapshot_download", refuse)
    load(settings(checkpoint_folder), resolution=224)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is CUDA here")
def test_cuda_on_a_machine_without_a_gpu(checkpoint_folder: Path) -> None:
    with pytest.raises(SettingsError, match=r"checkpoint\.device"):
        load(settings(checkpoint_folder, device="cuda"), resolution=224)


def test_fingerprint_depends_on_the_weights_only(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fingerprint(copy)
    (copy / "README.md").write_text("something else")
    assert fingerprint(copy) == whole
    monkeypatch.setattr(files, "WHOLE_FILE_BYTES", 1000)
    sampled = fingerprint(copy)
    assert sampled != whole
    path = copy / "model.safetensors"
    changed = {name: tensor + 1 for name, tensor in load_file(path).items()}
    save_file(changed, path, metadata={"format": "pt"})
    assert fingerprint(copy) != sampled
