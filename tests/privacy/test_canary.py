"""Canaries in every text tag, in names of folders and files and in reports; then a search of all output.

One set of canaries may be nowhere (what tags, names and tables say of the patient), the other only where reports are
meant to be (words of the reports).
"""

from __future__ import annotations

import csv
import io
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pydicom
import pytest
import typer
from pydicom.datadict import DicomDictionary
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from typer.testing import CliRunner

from cxrreport import cli

CANARY = "ZEBRAFINCH"
REPORT_CANARY = "QUETZALBIRD"
FOLDER = "SMITH^JOHN"
UID = "1.2.826.0.1.3680043.8.498.77135"
VALUES = {
    "PN": f"{CANARY}^PERSON", "LO": f"{CANARY} LO", "SH": f"{CANARY}SH", "ST": f"{CANARY} ST", "LT": f"{CANARY} LT",
    "UT": f"{CANARY} UT", "UC": f"{CANARY} UC", "UR": f"http://{CANARY}.invalid/", "AE": f"{CANARY}AE",
    "CS": f"{CANARY}CS", "DA": "19020203", "DT": "19020203040506", "TM": "040506.777135", "AS": "077Y",
}  # fmt: skip
FORBIDDEN = (CANARY, "19020203", "1902-02-03", "777135", FOLDER, UID)
WITH_REPORTS = (
    "manifest.parquet",
    "predictions.",
    "shards/",
    "studies.parquet",
    "entities.jsonl",
    "sentences.json",
    "reports.csv",
    "review.html",
)
READ = frozenset(
    {"SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "PatientID", "Modality", "BodyPartExamined", "ViewPosition"}
    | {"PatientOrientation", "BurnedInAnnotation", "PhotometricInterpretation", "PresentationLUTShape"}
    | {"VOILUTFunction", "WindowCenterWidthExplanation", "SpecificCharacterSet", "TransferSyntaxUID"}
)


def dataset(patient: int, study: int) -> Dataset:
    """A radiograph in which every text tag contains a canary, with nested sequences and private tags."""
    rng = np.random.default_rng(study)
    pixels = (rng.random((64, 64)) * 200 + np.linspace(0, 3000, 64)).astype(np.uint16)
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    for tag, (representation, multiplicity, *_, keyword) in DicomDictionary.items():
        group = tag >> 16
        usable = (
            representation in VALUES and keyword and keyword not in READ and group > 2 and group not in (0x28, 0x7FE0)
        )
        if usable and multiplicity in ("1", "1-n"):
            made.add_new(tag, representation, VALUES[representation])
    inner = Dataset()
    inner.PatientName, inner.PatientID, inner.PatientComments = VALUES["PN"], VALUES["LO"], VALUES["LT"]
    outer = Dataset()
    outer.ReferencedStudySequence = [inner]
    made.OtherPatientIDsSequence = [outer]
    block = made.private_block(0x0029, f"{CANARY} CREATOR", create=True)
    block.add_new(0x01, "LO", VALUES["LO"])
    block.add_new(0x02, "SQ", [inner])
    made.SOPClassUID, made.Modality, made.BodyPartExamined, made.ViewPosition = (
        "1.2.840.10008.5.1.4.1.1.1",
        "CR",
        "CHEST",
        "PA",
    )
    made.SOPInstanceUID, made.StudyInstanceUID = f"{UID}.{study}.1", f"{UID}.{study}"
    made.PatientID = f"{CANARY}{patient}"
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.Rows, made.Columns = pixels.shape
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 16, 12, 11, 0
    made.PixelData = pixels.tobytes()
    made.file_meta.MediaStorageSOPClassUID, made.file_meta.MediaStorageSOPInstanceUID = made.SOPClassUID, generate_uid()
    return made


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """A hospital's export: folders with names, files with names, a table of reports, and files that are broken."""
    root = tmp_path / "in" / "export"
    rows = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for patient in range(6):
            folder = root / f"{FOLDER}_{patient}"
            folder.mkdir(parents=True)
            made = dataset(patient, 10 + patient)
            made.save_as(folder / f"{CANARY}_{patient}.dcm", enforce_file_format=True)
            split = ("train", "train", "train", "validate", "test", "test")[patient]
            text = f"The {REPORT_CANARY} heart is enlarged. There is a new effusion."
            rows.append((made.StudyInstanceUID, split, f"{REPORT_CANARY} pain", text, f"{REPORT_CANARY} cardiomegaly."))
        broken = root / f"{FOLDER}_0"
        data = (broken / f"{CANARY}_0.dcm").read_bytes()
        (broken / f"{CANARY}_cut.dcm").write_bytes(data[: len(data) - 3000])
        (broken / f"{CANARY}_text.txt").write_text(f"{CANARY} 1902-02-03")
        (broken / f"{CANARY}_twice.dcm").write_bytes(data)
        other = pydicom.dcmread(io.BytesIO(data))
        other.Modality, other.SOPInstanceUID = f"{CANARY}M", f"{UID}.9.9"
        other.save_as(broken / f"{CANARY}_modality.dcm")
    with (tmp_path / "in" / "reports.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("study_id", "split", "indication", "findings", "impression"))
        writer.writerows(rows)
    return root


class Shell:
    """Runs commands, and keeps what they print."""

    def __init__(self) -> None:
        self.printed: list[str] = []

    def __call__(self, *words: object, code: int = 0) -> str:
        with warnings.catch_warnings(record=True) as raised:
            warnings.simplefilter("always")
            done = CliRunner().invoke(cli.app, [str(word) for word in words], catch_exceptions=True)
        said = (
            f"{done.output}\n{getattr(done, 'stderr', '')}\n{done.exception!r}\n{[str(one.message) for one in raised]}"
        )
        assert done.exit_code == code, said
        self.printed.append(said)
        return said


def written(root: Path) -> Iterator[tuple[str, str]]:
    """Name and content of every file below, tables as their values."""
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        yield f"name of {name}", name
        if path.is_file():
            yield name, path.read_bytes().decode("latin-1")
            if path.suffix == ".parquet":
                table = pq.read_table(path)
                columns = [column for column in table.column_names if column != "image"]
                yield name, repr(table.select(columns).to_pydict()) + repr(table.schema.metadata)


def check(shell: Shell, root: Path, caplog: pytest.LogCaptureFixture) -> None:
    for said in [*shell.printed, caplog.text]:
        for word in (*FORBIDDEN, REPORT_CANARY):
            assert word.lower() not in said.lower(), (word, said)
    files = 0
    for name, content in written(root):
        files += 1
        if name == "traced/readers.json":  # the numbers of the readers, by name, for the user alone
            continue
        for word in FORBIDDEN:
            assert word.lower() not in content.lower(), (word, name)
        if not any(part in name for part in WITH_REPORTS):
            assert REPORT_CANARY.lower() not in content.lower(), name
    assert files > 10


def test_ingest_and_its_errors(
    export: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, out, shell = tmp_path / "in" / "key", tmp_path / "out", Shell()
    key.write_text("+Tq05oJ74zALiablosWWLw885pHz2dW8fd9Cf7A6B2w=")
    reports = tmp_path / "in" / "reports.csv"
    common = ("--reports", reports, "--pseudonymize", key)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/out/mlflow.db")
    out.mkdir()
    shell("ingest", "--input", export, "--output", out / "data", "--covariates", *common)
    ledger = pq.read_table(out / "data" / "ledger.parquet").to_pylist()
    assert {row["reason"] for row in ledger} >= {"not-dicom", "not-a-radiograph", "duplicate-image"}
    manifest = pq.read_table(out / "data" / "manifest.parquet").to_pylist()
    assert len(manifest) == 6 and len({row["patient_id"] for row in manifest}) == 6
    # Errors: a missing input, an input named after a patient, an invalid table.
    shell("ingest", "--input", export / f"{FOLDER}_9", "--output", out / "e1", *common, code=2)
    shell(
        "ingest",
        "--input",
        export / f"{FOLDER}_1",
        "--output",
        out / "e2",
        "--pseudonymize",
        key,
        "--no-require-report",
    )
    twice = tmp_path / "in" / "twice.csv"
    rows = reports.read_text().splitlines()
    twice.write_text("\n".join([*rows, rows[1].replace("enlarged", "normal")]))
    shell("ingest", "--input", export, "--output", out / "e3", "--reports", twice, "--pseudonymize", key, code=2)
    wrong = tmp_path / "in" / "wrong.csv"
    wrong.write_text(reports.read_text().replace("validate", CANARY))
    shell("ingest", "--input", export, "--output", out / "e4", "--reports", wrong, "--pseudonymize", key, code=2)
    check(shell, out, caplog)


def test_without_pseudonyms_only_ids_and_names_of_files_are_shown(
    export: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shell, out = Shell(), tmp_path / "out"
    shell("ingest", "--input", export, "--output", out, "--reports", tmp_path / "in" / "reports.csv", "--no-track")
    manifest = pq.read_table(out / "manifest.parquet").to_pylist()
    assert {row["patient_id"] for row in manifest} == {f"{CANARY}{patient}" for patient in range(6)}
    for row in manifest:
        told = {
            name: value for name, value in row.items() if name not in ("source", "patient_id", "image_id", "study_id")
        }
        assert not any(word.lower() in repr(told).lower() for word in FORBIDDEN)
    assert CANARY.lower() not in "".join(shell.printed).lower()


Words = tuple[object, ...]
ELSEWHERE = {
    "demo": "reads nothing but what it makes itself",
    "listen": "runs until it is stopped; tests/pacs/test_listen.py looks into its log",
}
"""Commands that are not run, and why that hides nothing."""


def walk(export: Path, out: Path) -> list[tuple[Words, int]]:
    """Every command, and some that fail, each with its expected exit code."""
    data, adapter, given = out / "data", out / "train" / "adapter", export.parent
    key, reports, training = given / "key", given / "reports.csv", given / "train.yaml"
    hidden, nobody = ("--pseudonymize", key), "http://127.0.0.1:1/dicom-web"
    return [
        (("ingest", "--input", export, "--output", data, *hidden, "--reports", reports), 0),
        (("train", training, "--input", data, "--output", out / "train", "--max-steps", 1), 0),
        (("generate", "--input", data, "--output", out / "generate", "--adapter", adapter), 0),
        (("generate", "--input", export, "--output", out / "loose", "--adapter", adapter, *hidden), 0),
        (("generate", "--input", data, "--output", out / "traced", "--adapter", adapter, "--traces"), 0),
        (("feedback", "-p", out / "traced", "--verdicts", given / "verdicts.csv"), 0),
        (("status", out / "generate"), 0),
        (("evaluate", "-p", out / "generate", "-r", data, "--output", out / "evaluate", "--radgraph", "tiny"), 0),
        (("compare", out / "evaluate", out / "evaluate", "--output", out / "compare"), 0),
        (("published", out / "evaluate"), 0),
        (("review", "-e", out / "evaluate", "--input", data, "--output", out / "review.html"), 0),
        (("agreement", "--verdicts", given / "verdicts.csv", "--scores", out / "evaluate", "-o", out / "readers"), 2),
        (("reporting", out, "-o", out / "checklists"), 0),
        (("export", "--predictions", out / "generate", "--output", out / "documents"), 0),
        (("pull", "--archive", nobody, "--patient", CANARY, "-o", out / "pulled", "--attempts", 1), 2),
        (("push", "-d", out / "documents", "--archive", nobody, "-o", out / "pushed", "--attempts", 1), 0),
        (("merge", adapter, out / "merged"), 0),
        (("register", "--adapter", adapter, "--name", "walk"), 0),
        (("sync", out), 0),
        (("weights", "--list", "--weights", out / "weights"), 0),
        (("plan", training), 0),
        (("doctor", "--json", out), 0),
        (("version", "--json"), 0),
        (("generate", "--input", export / f"{FOLDER}_9", "--output", out / "e1", "--adapter", adapter, *hidden), 2),
        (("evaluate", "-p", out / "none", "-r", data, "--output", out / "e2", "--radgraph", "tiny"), 2),
        (("train", "--input", out, "--output", out / "e3", "--checkpoint", "tiny"), 2),
    ]


def commands(group: Any, before: tuple[str, ...] = ()) -> Iterator[str]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*before, name))
        else:
            yield " ".join((*before, name))


def test_every_command_is_in_the_tutorial_run(tmp_path: Path) -> None:
    walked = [" ".join(map(str, words)) for words, _ in walk(tmp_path / "in", tmp_path)]
    for name in commands(typer.main.get_command(cli.app)):
        known = name in ELSEWHERE or any(f"{words} ".startswith(f"{name} ") for words in walked)
        assert known, f"a new command {name!r}: add it to `walk` here, or to ELSEWHERE with the reason"


def test_every_command(
    export: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cxrreport.assets import checkpoint_folder

    if not (checkpoint_folder("paligemma2-tiny-224") / "config.json").is_file():
        pytest.skip("the tiny checkpoint is not here")
    out, shell = tmp_path / "out", Shell()
    (tmp_path / "in" / "key").write_text("+Tq05oJ74zALiablosWWLw885pHz2dW8fd9Cf7A6B2w=")
    training = {"checkpoint": {"name": "tiny"}, "validation": {"radgraph": "tiny"}, "data": "", "output": ""}
    training["prompt"] = {"max_suffix_tokens": 32}  # so that reports for validation are soon written
    (tmp_path / "in" / "train.yaml").write_text(json.dumps(training))
    verdicts = f"study_id,report,reader,verdict,note\n{CANARY},generated,{CANARY},minor,{REPORT_CANARY}\n"
    (tmp_path / "in" / "verdicts.csv").write_text(verdicts)
    out.mkdir()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{out}/mlflow.db")
    for words, code in walk(export, out):
        shell(*words, code=code)
    check(shell, out, caplog)
