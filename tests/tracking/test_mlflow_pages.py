"""What MLflow's own pages show of a demo, in a browser, from a real server."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

pytestmark = pytest.mark.slow  # the server starts, and its pages are large


@pytest.fixture(scope="module")
def pictures() -> ModuleType:
    """The script that makes the pictures of the documentation from the same pages."""
    path = Path(__file__).parents[2] / "docs" / "pictures.py"
    spec = importlib.util.spec_from_file_location("docs_pictures", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if module.CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    return module


@pytest.fixture(scope="module")
def page(small_demo, pictures: ModuleType) -> Iterator[Any]:
    folder, done, _ = small_demo
    assert done.returncode == 0, done.stderr[-2000:]
    with pictures.mlflow_server(folder / "mlflow.db") as address, sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=pictures.CHROMIUM, args=pictures.QUIET)
        page = browser.new_page(viewport={"width": 1920, "height": 900})
        page.set_default_timeout(120_000)
        page.demo, page.address = folder, address
        yield page
        browser.close()


def test_the_models_page_shows_the_adapter_with_its_score(page: Any, pictures: ModuleType) -> None:
    scores = json.loads((page.demo / "evaluate" / "scores.json").read_text())["systems"]["model"]
    pictures.open_models(page, page.address)
    text = page.locator("body").inner_text()
    assert "radgraph_partial" in text
    assert re.search(r"^train$", text, re.MULTILINE)
    assert str(scores["radgraph_partial"]["value"])[:8] in text


def test_the_runs_page_lists_the_demo(page: Any) -> None:
    page.goto(f"{page.address}/#/experiments/1/runs")
    page.get_by_text("demo-phantoms", exact=True).first.wait_for()
