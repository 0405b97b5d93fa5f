"""The README's pictures, from what `make demo` has written: `python docs/pictures.py demo-out docs/images`.

Needs Chromium (Debian's package `chromium`) and the extra `dev`; starts `mlflow server` on loopback for its page.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from cxrreport import telemetry

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


@contextmanager
def mlflow_server(database: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{database.resolve()}"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        for _ in range(120):
            try:
                urlopen(f"http://127.0.0.1:{port}/health", timeout=2).close()
                break
            except OSError:
                time.sleep(1)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, 15)
        server.wait()


def open_models(page: Page, address: str) -> None:
    """Open the models of the first experiment, in the view for training: that for agents has no scores."""
    page.goto(f"{address}/#/experiments/1/models")
    page.get_by_text("Model training", exact=True).first.click(timeout=120_000)
    page.goto(f"{address}/#/experiments/1/models")
    page.get_by_text("Dataset", exact=True).first.wait_for(timeout=120_000)
    assistant = page.get_by_role("button", name="Close")
    if assistant.count():
        assistant.first.click()
    page.wait_for_timeout(3_000)


def smaller(source: Path, target: Path, width: int) -> None:
    picture = Image.open(source).convert("RGB")
    picture.thumbnail((width, 10_000))
    picture.quantize(128).save(target, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("demo", type=Path)
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    telemetry.turn_off()
    given.out.mkdir(parents=True, exist_ok=True)
    smaller(given.demo / "ingest" / "contact_sheet.png", given.out / "contact_sheet.png", 1000)
    smaller(given.demo / "train" / "loss.png", given.out / "loss.png", 1000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        page = browser.new_page(viewport={"width": 1280, "height": 860})
        page.goto((given.demo / "review.html").resolve().as_uri())
        page.keyboard.press("j")
        page.wait_for_timeout(500)
        page.screenshot(path=given.out / "review-full.png")
        with mlflow_server(given.demo / "mlflow.db") as address:
            page.goto(f"{address}/#/experiments/1/runs")
            # The demo's run is the parent of the others, and folded at first.
            page.locator("[role=row] button.du-bois-light-btn-link").click(timeout=60_000)
            assistant = page.get_by_role("button", name="Close")
            if assistant.count():
                assistant.first.click()
            page.wait_for_timeout(3_000)
            page.screenshot(path=given.out / "mlflow-full.png")
            page.set_viewport_size({"width": 1920, "height": 500})
            open_models(page, address)
            page.screenshot(path=given.out / "mlflow-models-full.png")
        browser.close()
    for name in ("review", "mlflow", "mlflow-models"):
        full = given.out / f"{name}-full.png"
        smaller(full, given.out / f"{name}.png", 1280)
        full.unlink()


if __name__ == "__main__":
    main()
