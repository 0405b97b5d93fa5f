"""Pseudonyms, marks of removed text, rewriters that declare themselves, text in the pixels, telemetry."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from cxrreport.dataset import Pseudonyms, hide_identifiers, id_for_message, path_for_message
from cxrreport.errors import SettingsError
from cxrreport.ingestion.images.burned_in import text_near_border
from cxrreport.reports.placeholders import edit_placeholders


def key_file(folder: Path, content: bytes = b"+Tq05oJ74zALiablosWWLw885pHz2dW8fd9Cf7A6B2w=") -> Path:
    path = folder / "key"
    path.write_bytes(content)
    return path


def test_pseudonyms_depend_on_key_kind_and_id(tmp_path: Path) -> None:
    one = Pseudonyms.from_file(key_file(tmp_path))
    other = Pseudonyms.from_file(key_file(tmp_path, bytes.fromhex("8f3a61d09c72e4b5176d0ea8f9c2345bd1")))
    assert one.of("patient", "1") == Pseudonyms.from_file(key_file(tmp_path)).of("patient", "1")
    assert len({one.of("patient", "1"), one.of("study", "1"), one.of("patient", "2"), other.of("patient", "1")}) == 4
    assert one.of("patient", "") == ""
    assert one.check not in repr(one) and repr(one.key) not in repr(one)
    assert one.check != other.check


def test_pseudonyms_of_paths_keep_folders_together_and_the_kind_of_file(tmp_path: Path) -> None:
    pseudonyms = Pseudonyms.from_file(key_file(tmp_path))
    first, second = pseudonyms.path("SMITH^JOHN/1.dcm"), pseudonyms.path("SMITH^JOHN/DOE.2")
    assert first.split("/")[0] == second.split("/")[0]
    assert first.endswith(".dcm") and not second.endswith(".2")
    assert "SMITH" not in first + second and "DOE" not in second


@pytest.mark.parametrize("content", [b"", b"   short   \n"])
def test_a_short_key_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(SettingsError, match="16 are needed"):
        Pseudonyms.from_file(key_file(tmp_path, content))
    with pytest.raises(SettingsError, match="cannot be read"):
        Pseudonyms.from_file(tmp_path / "none")


def test_messages_name_pseudonyms_while_they_are_active(tmp_path: Path) -> None:
    pseudonyms = Pseudonyms.from_file(key_file(tmp_path))
    assert (id_for_message("study", "7"), path_for_message("A/b.dcm")) == ("7", "A/b.dcm")
    with hide_identifiers(pseudonyms):
        assert id_for_message("study", "7") == pseudonyms.of("study", "7")
        assert "A" not in path_for_message("A/b.dcm").split("/")
    assert id_for_message("study", "7") == "7"


@pytest.mark.parametrize(
    ("text", "removed"),
    [
        ("___ year old woman.", "year old woman."),
        ("Compared to ___, clear.", "Compared to, clear."),
        ("Seen by Dr. ___ (___).", "Seen by Dr.."),
        ("XXXX sternotomy XXXX, XXXX, intact", "sternotomy, intact"),
        ("chest x-XXXX", "chest x-XXXX"),
        ("A_B and XXX stay.", "A_B and XXX stay."),
    ],
)
def test_placeholders(text: str, removed: str) -> None:
    assert edit_placeholders(text, "keep") == text
    if "x-XXXX" not in text:
        assert edit_placeholders(text, "remove") == removed
        assert "XXXX" not in edit_placeholders(text, "underscores")


def phantom(side: int, seed: int) -> np.ndarray:
    from cxrreport.demo.phantoms.drawing import draw, expose, sample_anatomy
    from cxrreport.demo.phantoms.findings import masked, sample_findings

    rng = np.random.default_rng(seed)
    grey = draw(sample_anatomy(rng), masked(sample_findings(rng)), side, side + 60, seed).grey
    return (np.clip(expose(grey, rng, noise=0.012 * side / 224), 0, 1) * 255).astype(np.uint8)


def test_burned_in_text_is_found_on_phantoms_and_nothing_else() -> None:
    found = 0
    for seed in range(16):
        grey = phantom(480, seed)
        assert not text_near_border(grey)
        picture = Image.fromarray(grey)
        draw = ImageDraw.Draw(picture)
        where = (12, 12) if seed % 2 else (12, 440)
        draw.rectangle((8, where[1] - 4, 300, where[1] + 26), fill=0 if seed % 4 < 2 else 255)
        font = ImageFont.load_default(size=14 + seed % 8)
        draw.text(where, "SMITH^JOHN 1961-04-12", fill=255 if seed % 4 < 2 else 0, font=font)
        found += text_near_border(np.asarray(picture))
    assert found >= 15


@pytest.mark.parametrize("shape", [(2, 2), (30, 2000), (64, 64)])
def test_small_and_flat_pictures_have_no_text(shape: tuple[int, int]) -> None:
    assert not text_near_border(np.zeros(shape, dtype=np.uint8))


def test_telemetry_is_off_before_anything_else_is_imported() -> None:
    code = (
        "import os, cxrreport, importlib.util\n"
        "from cxrreport.telemetry import OFF\n"
        "assert all(os.environ[name] == value for name, value in OFF.items())\n"
        "try:\n    import openvino_telemetry\nexcept ImportError:\n    print('off')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={"PATH": ""})
    assert done.stdout.strip() == "off", done.stderr
    assert importlib.import_module("cxrreport.telemetry").OFF["MLFLOW_DISABLE_TELEMETRY"] == "true"
