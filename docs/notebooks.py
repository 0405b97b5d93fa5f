"""The notebooks, executed once for each state of code and notebooks, and as pages of the documentation.

The executed notebooks are kept in `build/notebooks`, where the documentation and the tests share them.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SKIP = "CXRREPORT_DOCS_NOTEBOOKS"
"""Environment variable: 0 to build the documentation without the outputs of the notebooks."""
_SECONDS = 590
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def state() -> str:
    """Hash of everything that the outputs depend on in this repository."""
    digest = hashlib.sha256()
    for path in sorted([*NOTEBOOKS, *(p for p in (ROOT / "cxrreport").rglob("*") if p.suffix in (".py", ".csv"))]):
        digest.update(path.relative_to(ROOT).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def executed(path: Path) -> Any:
    """One notebook with its outputs. All work in one folder, as those of a reader do."""
    from nbclient import NotebookClient

    folder = ROOT / "build" / "notebooks" / state()
    done = folder / path.name
    if done.exists():
        return nbformat.read(done, as_version=4)
    folder.mkdir(parents=True, exist_ok=True)
    notebook = nbformat.read(path, as_version=4)
    before = os.environ.pop("MLFLOW_TRACKING_URI", None)
    try:
        place = {"metadata": {"path": str(folder)}}
        NotebookClient(notebook, timeout=_SECONDS, kernel_name="python3", resources=place).execute()
    finally:
        if before is not None:
            os.environ["MLFLOW_TRACKING_URI"] = before
    temporary = done.with_suffix(".partial")
    nbformat.write(notebook, temporary)
    temporary.rename(done)
    return notebook


def page(path: Path) -> tuple[str, dict[str, bytes]]:
    """A notebook as Markdown, and its pictures by the names that the Markdown uses."""
    shown = os.environ.get(SKIP, "1") != "0"
    notebook = executed(path) if shown else nbformat.read(path, as_version=4)
    pictures: dict[str, bytes] = {}
    parts = [] if shown else ["*This build has no outputs.*"]
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source.replace(".ipynb)", ".md)"))
            continue
        parts.append(f"```python\n{cell.source.rstrip(';')}\n```")
        for output in cell.outputs:
            parts += _output(output, f"{path.stem}-{len(pictures) + 1}.png", pictures)
    return "\n\n".join(parts) + "\n", pictures


def _output(output: Any, name: str, pictures: dict[str, bytes]) -> Iterator[str]:
    data = output.get("data", {})
    if "image/png" in data:
        pictures[name] = base64.b64decode(data["image/png"])
        yield f"![Output of the code above]({name})"
    elif "text/html" in data:
        yield f'<div class="notebook-table" markdown="0">{_table(data["text/html"])}</div>'
    elif text := output.get("text") or data.get("text/plain"):
        yield f"```text\n{_COLOURS.sub('', text).rstrip()}\n```"


def _table(html: str) -> str:
    """The table of a data frame without its style, on one line: an empty line would end the HTML of Markdown."""
    table = re.sub(r"<style.*?</style>", "", html, flags=re.DOTALL)
    return " ".join(re.sub(r' border="1"', "", table).split())
