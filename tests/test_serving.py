"""A model in a real MLflow store, loaded by MLflow and queried in this process and through `mlflow models serve`."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from untrained_adapter import write_adapter

from cxrreport import serving
from cxrreport.demo.phantoms.dicom import example
from cxrreport.errors import InputError, SettingsError, WeightsError
from cxrreport.settings import RegisterSettings, TrackingSettings


def settings_of(folder: Path) -> RegisterSettings:
    return RegisterSettings(
        adapter=folder / "train" / "adapter",
        name="reports",
        aliases=("champion", "newest"),
        max_new_tokens=6,
        tracking=TrackingSettings(uri=f"sqlite:///{folder / 'mlflow.db'}"),
    )


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> serving.Registered:
    """An untrained adapter of the tiny checkpoint, registered in a separate store."""
    folder = tmp_path_factory.mktemp("serving")
    write_adapter(folder / "train" / "adapter")
    return serving.register(settings_of(folder))


@pytest.fixture(scope="module")
def files(registered: serving.Registered) -> Iterator[Path]:
    """Where MLflow keeps the model, fetched through its alias as a server would."""
    with pytest.MonkeyPatch.context() as patch:  # what `set_tracking_uri` sets stays for all tests that come after
        patch.setenv("MLFLOW_TRACKING_URI", registered.tracking_uri)
        yield Path(mlflow.artifacts.download_artifacts("models:/reports@champion"))


@pytest.fixture(scope="module")
def model(files: Path) -> Any:
    return mlflow.pyfunc.load_model(str(files))


def test_a_version_has_its_aliases_and_leads_back_to_its_adapter(registered: serving.Registered) -> None:
    client = MlflowClient(registered.tracking_uri)
    version = client.get_model_version_by_alias("reports", "champion")
    assert (str(version.version), version.run_id) == (registered.version, registered.run_id)
    run = client.get_run(version.run_id)
    assert run.info.run_name == f"register-{version.name}"
    assert run.info.status == "FINISHED"
    assert run.data.tags["digest.model.adapter"] == version.tags["digest.adapter"]
    assert run.data.params["max_new_tokens"] == "6"
    assert version.tags["synthetic"] == "true"


def test_the_packed_model_names_its_requirements_and_contains_no_pickle(files: Path) -> None:
    lines = (files / "requirements.txt").read_text().splitlines()
    assert {"torch", "transformers", "peft", "pydicom", "mlflow"} <= {line.partition("==")[0] for line in lines}
    assert all("==" in line and "+" not in line for line in lines)
    names = [path.name for path in files.rglob("*") if path.is_file()]
    assert not [name for name in names if name.endswith((".pkl", ".pickle", ".bin", ".pt"))]
    assert "adapter_model.safetensors" in names


def test_the_input_example_gets_a_report(model: Any, files: Path) -> None:
    kept = model.metadata.load_input_example(str(files))
    (report,) = model.predict(kept).to_dict("records")
    assert report["text"]
    assert report["mean_logprob"] <= 0
    assert "phantoms" in report["warning"]
    assert list(report) == serving.SIGNATURE.outputs.input_names()


def test_bytes_and_a_path_below_the_root_are_the_same_radiograph(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "root" / "study").mkdir(parents=True)
    (tmp_path / "root" / "study" / "1.dcm").write_bytes(example(1))
    monkeypatch.setenv(serving.ROOT, str(tmp_path / "root"))
    both = pd.DataFrame({"dicom": [example(1), None], "path": [None, "study/1.dcm"], "indication": ["Cough."] * 2})
    first, second = model.predict(both).to_dict("records")
    assert first["text"] == second["text"]


@pytest.mark.parametrize(
    "path",
    ["../secret.dcm", "/etc/passwd", "link/secret.dcm", "study/../../secret.dcm", "nowhere", "a\0b", "x" * 5000, "."],
)
def test_paths_do_not_leave_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    root = tmp_path / "root"
    (root / "study").mkdir(parents=True)
    (tmp_path / "secret.dcm").write_bytes(b"x")
    (root / "link").symlink_to(tmp_path)
    monkeypatch.setenv(serving.ROOT, str(root))
    with pytest.raises(InputError, match="no such file below") as refused:
        serving.resolve_below_root(path)
    assert str(tmp_path) not in str(refused.value)


def test_without_a_root_paths_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(serving.ROOT, raising=False)
    with pytest.raises(InputError, match=serving.ROOT):
        serving.resolve_below_root("1.dcm")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"dicom": b"no dicom"}, "row 0: not-dicom"),
        ({"indication": "Cough."}, "row 0: give either"),
        ({"dicom": b"x", "path": "y"}, "row 0: give either"),
        ({"dicom": "no Base64!"}, "row 0: dicom: not Base64"),
        ({"dicom": 5}, "row 0: dicom: send a text"),
        ({"dicom": b"x", "indication": ["SECRET"]}, "row 0: indication: send a text"),
        ({"pth": "SECRET"}, "1 unknown columns; known are dicom, path, indication"),
        ({"path": "1.dcm", "indicaton": "SECRET"}, "1 unknown columns"),
    ],
)
def test_a_bad_row_is_a_refusal_with_its_reason(model: Any, row: dict[str, Any], reason: str) -> None:
    with pytest.raises(MlflowException, match=reason) as refused:
        model.predict(pd.DataFrame([row]))
    assert refused.value.get_http_status_code() == 400
    refused.value.message = "MLflow puts SECRET rows before it"
    assert "SECRET" not in refused.value.serialize_as_json()


@pytest.mark.parametrize("table", [[], {}, pd.DataFrame({"path": []}), "SECRET", [1, 2], {"path": {"a": ["SECRET"]}}])
def test_requests_without_a_table_or_rows_are_refused(model: Any, table: Any) -> None:
    with pytest.raises(serving.RefusedRequest) as refused:
        model.predict(table)
    assert refused.value.get_http_status_code() == 400
    assert "SECRET" not in str(refused.value)


def test_an_unexpected_failure_does_not_show_the_request(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise KeyError("SECRET")

    monkeypatch.setattr("cxrreport.serving.rows.to_square", fail)
    with pytest.raises(serving.RefusedRequest, match=r"the model failed \(KeyError\)") as refused:
        model.predict(pd.DataFrame([{"dicom": example(1)}]))
    assert refused.value.get_http_status_code() == 500
    assert "SECRET" not in refused.value.serialize_as_json()


def test_a_file_in_a_request_is_never_written_to_disk(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "no such folder"))
    assert model.predict(pd.DataFrame([{"dicom": example(1)}])).to_dict("records")[0]["text"]


def test_the_number_of_rows_of_a_request_is_limited(model: Any) -> None:
    with pytest.raises(MlflowException, match="more than 64 rows"):
        model.predict(pd.DataFrame({"path": ["a"] * 65}))


def test_registering_again_makes_a_new_version_in_a_new_run(registered: serving.Registered) -> None:
    folder = Path(registered.tracking_uri.removeprefix("sqlite:///")).parent
    client = MlflowClient(registered.tracking_uri)
    first = client.get_model_version("reports", registered.version).source
    again = serving.register(settings_of(folder))
    assert int(again.version) == int(registered.version) + 1
    assert again.run_id != registered.run_id
    assert client.get_model_version("reports", again.version).source != first
    assert str(client.get_model_version_by_alias("reports", "champion").version) == again.version
    assert list((folder / "train").iterdir()) == [folder / "train" / "adapter"]


def test_models_that_cannot_be_registered(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"cxrreport\.json"):
        serving.register(RegisterSettings(adapter=tmp_path))
    with pytest.raises(SettingsError, match="needs MLflow"):
        serving.register(RegisterSettings(adapter=tmp_path, tracking=TrackingSettings(enabled=False)))


def ask(port: int, body: Any) -> tuple[int, str]:
    """Status and text of the answer to one request."""
    data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/invocations", data=data, headers={"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@pytest.mark.slow
def test_mlflow_serves_it(registered: serving.Registered, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "1.dcm").write_bytes(example())
    environment = os.environ | {
        "MLFLOW_TRACKING_URI": registered.tracking_uri,
        serving.ROOT: str(tmp_path / "root"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",  # MLflow calls uvicorn by its name
    }
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", "models:/reports@champion"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--env-manager", "local", "--workers", "1"]
    given: dict[str, Any] = {"env": environment, "cwd": tmp_path, "start_new_session": True}
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, **given)
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2)
                break
            except OSError:
                time.sleep(0.5)
        else:
            pytest.fail((tmp_path / "log").read_text()[-2000:])
        content = base64.b64encode(example()).decode()
        status, text = ask(port, {"dataframe_records": [{"dicom": content}]})
        assert status == 200, text
        (report,) = json.loads(text)["predictions"]
        assert report["text"]
        status, text = ask(port, {"dataframe_records": [{"path": "1.dcm"}]})
        assert json.loads(text)["predictions"][0]["text"] == report["text"]
        for body, reason in (
            ({"dataframe_records": [{"dicom": base64.b64encode(b"nonsense").decode()}]}, "not-dicom"),
            ({"dataframe_records": [{"path": "../log"}]}, "no such file below"),
            ({"dataframe_records": [{"indication": "Cough."}]}, "give either"),
            ({"something": "SECRET"}, "dataframe_records"),
            ({"dataframe_records": [{"pth": "SECRET"}]}, "unknown columns"),
            ({"dataframe_split": {"columns": ["path"], "data": [[["SECRET"]]]}}, "path: send a text"),
            ({"inputs": "SECRET"}, ""),
            ({"instances": [{"path": "SECRET"}]}, "no such file below"),
            ('{"dataframe_records": [{"path": "SECRET"', "send JSON in UTF-8"),
        ):
            status, text = ask(port, body)
            assert "SECRET" not in text
            assert 400 <= status < 500, text
            assert reason in text
            assert "Traceback" not in text
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # the server that this test began, and its workers
        process.wait(timeout=30)


@pytest.mark.slow
@pytest.mark.timeout(3600)  # of which nearly all is pip's
def test_it_loads_in_a_fresh_environment_from_its_requirements(files: Path, tmp_path: Path) -> None:
    """Without this checkout: a new environment, what the model asks for, and the model."""
    copied = tmp_path / "model"
    shutil.copytree(files, copied)
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "-r", copied / "requirements.txt"], check=True)
    script = """
import importlib.metadata, json, sys
import mlflow
model = mlflow.pyfunc.load_model(sys.argv[1])
(report,) = model.predict(model.metadata.load_input_example(sys.argv[1])).to_dict("records")
import cxrreport
assert cxrreport.__file__.startswith(sys.argv[1]), cxrreport.__file__
print(json.dumps(report))
"""
    command = [python, "-c", script, str(copied)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout.splitlines()[-1])["text"]
