from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cxrreport.assets import radgraph_folder
from cxrreport.demo.phantoms.annotated import AnnotatedText, annotate
from cxrreport.evaluation.radgraph import Annotation, Entity
from cxrreport.evaluation.radgraph.annotator import RadGraphAnnotator


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project's own archive in the folder of a user: `<root>/radgraph-xl`."""
    folder = tmp_path_factory.mktemp("models") / "radgraph-xl"
    shutil.copytree(radgraph_folder(), folder)
    return folder


@pytest.fixture(scope="session")
def annotator(archive: Path) -> RadGraphAnnotator:
    return RadGraphAnnotator(archive, device="cpu")


def make_stock(archive: Path, root: Path) -> Any:
    """The package's own `RadGraph` on the weights of `archive`; it needs the absolute path of the encoder's folder."""
    from cxrreport.evaluation.radgraph.compat import working_tokenizers

    shutil.copytree(archive, root / "radgraph-xl")
    config = json.loads((archive / "config.json").read_text())
    for part in (config["dataset_reader"]["token_indexers"], config["model"]["embedder"]["token_embedders"]):
        part["bert"]["model_name"] = str(root / "radgraph-xl" / "encoder")
    (root / "radgraph-xl" / "config.json").write_text(json.dumps(config))
    with working_tokenizers():
        from radgraph import RadGraph

        return RadGraph(model_type="radgraph-xl", model_cache_dir=str(root), cuda=-1)


@pytest.fixture(scope="session")
def stock(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return make_stock(archive, tmp_path_factory.mktemp("stock"))


@pytest.fixture
def stock_of(tmp_path: Path) -> Callable[[Path], Any]:
    """The package's own `RadGraph` on another archive."""
    return lambda archive: make_stock(archive, tmp_path / "stock")


def annotation(text: AnnotatedText) -> Annotation:
    """The grammar's graph as RadGraph would give it."""
    relations: dict[int, list[tuple[str, int]]] = {}
    for one in text.relations:
        relations.setdefault(one.head, []).append((one.kind, one.tail))
    entities = tuple(
        Entity(" ".join(text.tokens[e.start : e.end + 1]), e.label, e.start, e.end, tuple(relations.get(place, ())))
        for place, e in enumerate(text.entities)
    )
    return Annotation(text.tokens, entities)


@pytest.fixture(scope="session")
def graph_of() -> Callable[[AnnotatedText | str], Annotation]:
    """RadGraph's annotation of a text that carries its own, or of a template in the grammar's notation."""
    return lambda text: annotation(annotate(text) if isinstance(text, str) else text)
