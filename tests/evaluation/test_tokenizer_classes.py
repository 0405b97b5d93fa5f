"""The class of an encoder's tokenizer decides whether segments of a text get special tokens.

`data/tokenizer_classes.json` holds what radgraph 0.1.18 makes of four phantom reports under transformers 4.57.6, with
the tiny archive declared to have each class. ModernBERT, the encoder of `modern-radgraph-xl`, has the generic class.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from cxrreport.evaluation.radgraph.annotator import RadGraphAnnotator

RECORDED = json.loads((Path(__file__).parent / "data" / "tokenizer_classes.json").read_text())


@pytest.mark.stock("radgraph", "transformers")
@pytest.mark.parametrize("declared", ["PreTrainedTokenizerFast", "BertTokenizerFast"])
def test_graphs_are_those_under_transformers_4(archive: Path, tmp_path: Path, declared: str) -> None:
    folder = tmp_path / "archive"
    shutil.copytree(archive, folder)
    config = folder / "encoder" / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"tokenizer_class": declared}))
    annotator = RadGraphAnnotator(folder, cache=None)
    found = [
        [[one.start, one.end, one.label, sorted(map(list, one.relations))] for one in annotation.entities]
        for annotation in annotator.annotate([row["text"] for row in RECORDED])
    ]
    assert found == [row[declared] for row in RECORDED]
    assert all(row["PreTrainedTokenizerFast"] != row["BertTokenizerFast"] for row in RECORDED)
