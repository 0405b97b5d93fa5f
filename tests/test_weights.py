"""Weights fetched from a hub that is a folder of this machine."""

from __future__ import annotations

import json
import shutil
import tarfile
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cxrreport import cli, weights
from cxrreport.assets import radgraph_folder
from cxrreport.errors import SettingsError, WeightsError
from cxrreport.evaluation.radgraph import archives
from cxrreport.evaluation.radgraph.annotator import RadGraphAnnotator
from cxrreport.model import checkpoints
from cxrreport.model.checkpoints import files
from cxrreport.settings import WEIGHTS, CheckpointSettings, EvaluateSettings

NAMES = ("paligemma2-3b-pt-224", "radgraph-xl", "chexbert")


def silent(*_: Any) -> None:
    pass


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Repositories as folders. `asked` in it counts the calls; what is not asked for is not given."""
    root = tmp_path / "hub"
    base = root / "google" / "paligemma2-3b-pt-224"
    shutil.copytree(checkpoints.locate(CheckpointSettings(name="tiny")), base)
    (base / "pytorch_model.bin").write_bytes(b"a pickle")
    scorers = root / archives.REPOSITORY
    scorers.mkdir(parents=True)
    with tarfile.open(scorers / "radgraph-xl.tar.gz", "w:gz") as tar:
        for part in ("config.json", "weights.th", "vocabulary"):
            tar.add(radgraph_folder() / part, part)
    (scorers / "chexbert.pth").write_bytes(b"weights")
    encoder = archives.read(radgraph_folder()).encoder
    shutil.copytree(radgraph_folder() / "encoder", root / encoder)
    bert = root / "google-bert" / "bert-base-uncased"
    bert.mkdir(parents=True)
    (bert / "vocab.txt").write_text("[PAD]\n")
    (bert / "model.safetensors").write_bytes(b"not needed")

    def snapshot_download(repository: str, *, revision: str | None, allow_patterns: list[str], local_dir: Path) -> str:
        with (root / "asked").open("a") as file:
            file.write(f"{repository}\n")
        for path in (root / repository).iterdir():
            if any(fnmatch(path.name, pattern) for pattern in allow_patterns):
                local_dir.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, local_dir / path.name)
        return str(local_dir)

    monkeypatch.setattr(files, "snapshot_download", snapshot_download)
    return root


def test_downloaded_weights_are_found_and_hashed(hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "weights"
    fetched = weights.fetch(NAMES, root, progress=silent)
    assert fetched.keys() == set(NAMES)
    assert json.loads((root / weights.INVENTORY).read_text()) == fetched
    assert all(weights.is_complete(name, root) for name in NAMES)
    names = {path.name for path in root.rglob("*") if path.is_file()}
    assert not names & {"pytorch_model.bin", "radgraph-xl.tar.gz"}
    assert not (root / "chexbert" / "model.safetensors").exists()
    assert weights.find_changed_files(root) == []

    monkeypatch.setenv(WEIGHTS, str(root))
    asked = (hub / "asked").read_text()
    found = checkpoints.locate(CheckpointSettings(name="paligemma2-3b-pt-224"))
    assert found == root / "paligemma2-3b-pt-224"
    folder = archives.locate(EvaluateSettings.model_fields["radgraph"].default, root)
    (annotation,) = RadGraphAnnotator(folder, cache=tmp_path / "cache.sqlite").annotate(["No effusion."])
    assert annotation.entities
    assert weights.fetch(NAMES, root, progress=silent) == fetched
    assert (hub / "asked").read_text() == asked


def test_a_file_that_changed_or_is_gone_is_named(hub: Path, tmp_path: Path) -> None:
    root = tmp_path / "weights"
    weights.fetch(["chexbert"], root, progress=silent)
    (root / "chexbert" / "chexbert.pth").write_bytes(b"other weights")
    (root / "chexbert" / "vocab.txt").unlink()
    assert weights.find_changed_files(root) == ["chexbert/chexbert.pth", "chexbert/vocab.txt"]
    shown = CliRunner().invoke(cli.app, ["weights", "--check", "--weights", str(root), "--json"])
    assert (shown.exit_code, json.loads(shown.stdout)["wrong"]) == (1, ["chexbert/chexbert.pth", "chexbert/vocab.txt"])


def test_a_folder_filled_by_hand_is_only_hashed(hub: Path, tmp_path: Path) -> None:
    root = tmp_path / "weights"
    (root / "chexbert").mkdir(parents=True)
    (root / "chexbert" / "chexbert.pth").write_bytes(b"weights")
    (root / "chexbert" / "vocab.txt").write_text("[PAD]\n")
    assert len(weights.fetch(["chexbert"], root, progress=silent)["chexbert"]) == 2
    assert not (hub / "asked").exists()


def test_a_sharded_checkpoint_is_complete_with_its_last_shard(tmp_path: Path) -> None:
    folder = tmp_path / "paligemma2-3b-pt-224"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    index = {"weight_map": {"a": shards[0], "b": shards[1]}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / shards[0]).touch()
    assert not weights.is_complete("paligemma2-3b-pt-224", tmp_path)
    (folder / shards[1]).touch()
    assert weights.is_complete("paligemma2-3b-pt-224", tmp_path)


def test_a_checkpoint_missing_from_the_folder_is_not_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(WEIGHTS, str(tmp_path))
    with pytest.raises(WeightsError, match="cxrreport weights paligemma2-3b-pt-896 --weights"):
        checkpoints.locate(CheckpointSettings(name="paligemma2-3b-pt-896"))


def test_unknown_or_missing_things_are_named(hub: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="gpt: unknown; choose from paligemma2-3b-pt-224"):
        weights.fetch(["gpt"], tmp_path, progress=silent)
    with pytest.raises(WeightsError, match="cxrreport weights NAME"):
        weights.find_changed_files(tmp_path)
    shutil.rmtree(hub / "google")
    (hub / "google" / "paligemma2-3b-pt-224").mkdir(parents=True)
    with pytest.raises(WeightsError, match="contains none of the files"):
        weights.fetch(["paligemma2-3b-pt-224"], tmp_path / "w", progress=silent)


def test_the_list_for_a_machine_without_a_network_fetches_nothing(hub: Path, tmp_path: Path) -> None:
    shown = CliRunner().invoke(cli.app, ["weights", "--list", "--weights", str(tmp_path / "w")])
    assert shown.exit_code == 0, shown.output
    for repository in ("google/paligemma2-3b-pt-896", archives.REPOSITORY, "google-bert/bert-base-uncased"):
        assert f"hf download {repository} --local-dir" in shown.output
    assert "licence" in shown.output
    assert not (hub / "asked").exists()


def test_the_folder_may_be_named_before_any_command(hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WEIGHTS, "")  # restored afterwards, as the command sets it for the whole process
    shown = CliRunner().invoke(cli.app, ["--weights", str(tmp_path / "w"), "weights", "chexbert", "--json"])
    assert shown.exit_code == 0, shown.output
    assert "chexbert/chexbert.pth" in json.loads(shown.stdout)["chexbert"]


def test_the_encoders_of_a_metric_lie_in_folders_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def snapshot_download(repository: str, *, revision: str | None, allow_patterns: list[str], local_dir: Path) -> str:
        local_dir.mkdir(parents=True)
        for name in ("config.json", "tokenizer.json", "model.safetensors"):
            assert any(fnmatch(name, pattern) for pattern in allow_patterns)
            (local_dir / name).write_text(repository)
        return str(local_dir)

    monkeypatch.setattr(files, "snapshot_download", snapshot_download)
    fetched = weights.fetch(["ratescore", "bertscore"], tmp_path, progress=silent)
    assert set(fetched["ratescore"]) == {
        f"ratescore/{part}/{name}"
        for part in ("entities", "terms")
        for name in ("config.json", "tokenizer.json", "model.safetensors")
    }
    assert "distilroberta-base/config.json" in fetched["bertscore"]
    assert (tmp_path / "ratescore" / "terms" / "config.json").read_text() == "FremyCompany/BioLORD-2023-C"
    assert all(weights.is_complete(name, tmp_path) for name in ("ratescore", "bertscore"))
    (tmp_path / "ratescore" / "terms" / "model.safetensors").unlink()
    assert not weights.is_complete("ratescore", tmp_path)
    assert weights.find_changed_files(tmp_path) == ["ratescore/terms/model.safetensors"]
