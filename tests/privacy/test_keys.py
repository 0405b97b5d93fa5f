"""The key of pseudonyms: what is accepted, what version 1 was, and that MLflow gets nothing made with it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
import uuid
from pathlib import Path

import pytest
from plain_studies import write_studies

from cxrreport import runs
from cxrreport.dataset import Manifest, Pseudonyms
from cxrreport.dataset.pseudonym_key import read_key
from cxrreport.errors import OutputError, SettingsError
from cxrreport.ingestion.ingest import ingest
from cxrreport.settings import IngestSettings, TrackingSettings

RANDOM = [hashlib.sha256(b"random %d" % number).digest() for number in range(8)]
FORMS = {
    "Base64": lambda data: base64.encodebytes(data),
    "Base64 of two lines": lambda data: base64.encodebytes(data * 1 + hashlib.sha512(data).digest()),
    "Base64 for URLs": lambda data: base64.urlsafe_b64encode(data).rstrip(b"="),
    "hexadecimal": lambda data: data.hex().upper().encode() + b"\n",
    "16 bytes": lambda data: data[:16],
    "UUID": lambda data: str(uuid.UUID(bytes=data[:16], version=4)).encode(),
}
GUESSED = [
    b"aaaaaaaaaaaaaaaa",
    b"passwordpasswordpasswordpassword",
    b"12345678901234567890123456789012",
    b"0123456789abcdef0123456789abcdef",
    b"deadbeef" * 8,
    b"correct horse battery staple",
    b"correcthorsebatterystaple123",
    b"StMaryHospitalRadiology2026Key1",
    b"aBcDeFgHiJkLmNoPqRsTuVwXyZ12",
    b"qwertyuiopasdfghjklzxcvbnm",
    bytes(range(128, 160)),
    b"\xff\x00" * 16,
    "Schlüssel für die Klinik 2026".encode(),
    "Universitätsklinikum 2026".encode("latin-1"),
    "病院の秘密鍵です二〇二六".encode(),
    "Zwölf Boxkämpfer jagen Viktor quer".encode("latin-1"),
    "ÄpfelBirnen+Kiwi42?wZ".encode("cp437"),
    "señorPingüinoFabriKxz12".encode("cp1252"),
    "Широкая электрификация южных губерний".encode("cp1251"),
    "いろはにほへとちりぬるを".encode("shift-jis"),
    b"abcdefghijklmnopqrstuvwxyz0123456789",
]


@pytest.mark.parametrize("form", FORMS)
def test_random_keys_are_accepted(form: str, tmp_path: Path) -> None:
    key = tmp_path / "key"
    accepted = 0
    for data in RANDOM:
        key.write_bytes(FORMS[form](data))
        try:
            found = read_key(key)
        except SettingsError:  # one in 100, by chance
            continue
        accepted += 1
        assert found.secret.hex()[:8] not in found.check and len(found.secret) == 32
    assert accepted >= len(RANDOM) - 1


@pytest.mark.parametrize("content", GUESSED)
def test_guessable_keys_are_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(content)
    with pytest.raises(SettingsError, match="can be guessed") as error:
        read_key(tmp_path / "key")
    assert content.decode("latin-1") not in str(error.value)


def settings(root: Path, name: str = "data", **values: object) -> IngestSettings:
    common = {"input": root / "HOSPITAL", "layout": "folder", "require_report": False, "pseudonymize": root / "key"}
    return IngestSettings.model_validate(common | {"output": root / "out" / name} | values)


def test_data_sets_of_version_1_keep_their_pseudonyms(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_studies(tmp_path / "HOSPITAL", 2)
    weak = b"the passphrase of an old data set"
    (tmp_path / "key").write_bytes(weak)
    ingest(settings(tmp_path, pseudonym_version=1))
    rows = Manifest.open(tmp_path / "out" / "data").images.values()
    plain = {hmac.new(weak, f"patient\0P{number}".encode(), hashlib.sha256).hexdigest()[:32] for number in range(2)}
    assert {row.patient_id for row in rows} == plain
    assert '"pseudonymize": "key ' in (tmp_path / "out" / "data" / "ingest.json").read_text()
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert ingest(settings(tmp_path)).kept == 2  # the same command, as before version 2
    assert "version 1" in caplog.text
    (tmp_path / "key").write_bytes(b"another passphrase, for example")
    with pytest.raises(OutputError, match="pseudonymize was"):
        ingest(settings(tmp_path))
    with pytest.raises(SettingsError, match="can be guessed"):
        ingest(settings(tmp_path, "new"))


def test_mlflow_gets_nothing_that_was_made_with_the_key(tmp_path: Path) -> None:
    write_studies(tmp_path / "HOSPITAL", 2)
    (tmp_path / "key").write_bytes(base64.b64encode(RANDOM[0]))
    runs.ingest(settings(tmp_path))
    with pytest.raises(OutputError):
        runs.ingest(settings(tmp_path, resolution=448))
    pseudonyms = Pseudonyms.from_file(tmp_path / "key")
    made = [pseudonyms.path(part) for part in (tmp_path / "HOSPITAL").resolve().parts]
    made += [pseudonyms.check.split()[-1]]
    made += [pseudonyms.of(kind, f"P{number}") for kind in ("patient", "study", "image") for number in range(2)]
    state = (tmp_path / "out" / "data" / "ingest.json").read_text()
    assert made[1] in state and pseudonyms.check in state
    stored = [path for path in (tmp_path / "out").rglob("*") if path.is_file() and "data" not in path.parts]
    assert {"mlflow.db", "ingest.json", "settings.json"} <= {path.name for path in stored}
    for path in stored:
        content = path.read_bytes().decode("latin-1")
        assert not [text for text in made if text[:8] in content], path
        assert "HOSPITAL" not in content


def test_the_run_of_a_command_is_found_again_without_its_key(tmp_path: Path) -> None:
    write_studies(tmp_path / "HOSPITAL", 2)
    (tmp_path / "key").write_bytes(base64.b64encode(RANDOM[0]))
    first, second = (runs.ingest(settings(tmp_path, tracking=TrackingSettings())) for _ in range(2))
    assert first.run_id == second.run_id


def test_the_path_of_one_radiograph_does_not_reach_mlflow(tmp_path: Path) -> None:
    write_studies(tmp_path / "p19876543" / "s50001234", 1)
    file = tmp_path / "p19876543" / "s50001234" / "0.dcm"
    runs.ingest(settings(tmp_path, input=file, pseudonymize=None))
    assert "s50001234" in (tmp_path / "out" / "data" / "ingest.json").read_text()
    stored = [path for path in (tmp_path / "out").rglob("*") if path.is_file() and "data" not in path.parts]
    assert "mlflow.db" in {path.name for path in stored}
    assert [path for path in stored if b"50001234" in path.read_bytes() or b"19876543" in path.read_bytes()] == []
