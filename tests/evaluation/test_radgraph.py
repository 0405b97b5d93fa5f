from __future__ import annotations

import json
import logging
import random
import shutil
import string
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cxrreport.demo.phantoms.grammar import sample_annotated
from cxrreport.errors import UnsupportedVersionError
from cxrreport.evaluation.radgraph import NO_ENTITIES, Annotation, Entity, Level, agreement, compat, rexrank, statuses
from cxrreport.evaluation.radgraph.annotator import RadGraphAnnotator
from cxrreport.evaluation.radgraph.batched_model import BatchedModel, span_table

pytestmark = pytest.mark.stock("radgraph", "transformers")


ODD = [
    "",
    "Pneumothorax",
    ".",
    "___",
    "___ cm above the ___ .",
    "2.5",
    "1. 2. 3) 100%. (5%), 3%) x.'",
    "Ünïcödé Lunge frei – kein Erguß ☃ 漢字 сердце",
    "\u200b\u200b \u00ad",
    "\x00\x07 clear",
    'No pleural effusion\nor pneumothorax.\\nHeart \\f size \\u2122 is \\"normal\\".',
    "NO PLEURAL EFFUSION OR PNEUMOTHORAX.",
    "no pleural effusion or pneumothorax",
    "effusion " * 40,
    "The heart is mildly enlarged. " * 12,
    "A" * 300,
    "supercalifragilisticexpialidocious pneumothoraces",
    "<b>Lungs</b> &amp; <script>alert('x')</script>",
    "/. /? a/b -- ... ?!",
]


def texts() -> list[str]:
    """Texts of the grammar, their casings and cuts, and random ones."""
    rng = np.random.default_rng(5)
    reports = [sample_annotated(rng, templates="seen").text for _ in range(40)]
    reports += [sample_annotated(rng, templates="held-out").text for _ in range(40)]
    chance = random.Random(5)
    noise = ["".join(chance.choices(string.printable, k=chance.randint(1, 80))) for _ in range(40)]
    shuffled = [" ".join(chance.sample(text.split(), len(text.split()))) for text in reports[30:60]]
    cut = [text[: chance.randint(1, len(text))] for text in reports[30:60]]
    return [text for text in [*ODD, *reports, *noise, *shuffled, *cut, reports[0].upper()] if not text or text.split()]


def as_stock(annotation: Annotation) -> dict[str, Any]:
    entities = {
        str(number): {
            "tokens": entity.words,
            "label": entity.label,
            "start_ix": entity.start,
            "end_ix": entity.end,
            "relations": [[kind, str(aim + 1)] for kind, aim in entity.relations],
        }
        for number, entity in enumerate(annotation.entities, start=1)
    }
    return {"text": " ".join(annotation.tokens), "entities": entities, "data_source": None, "data_split": "inference"}


@pytest.fixture(scope="module")
def ours(annotator: RadGraphAnnotator) -> dict[str, Annotation]:
    wanted = texts()
    return dict(zip(wanted, annotator.annotate(wanted), strict=True))


@pytest.fixture(scope="module")
def stock_annotations(stock: Any) -> dict[str, Any]:
    wanted = texts()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = stock(wanted)
    assert len(found) == len(wanted), "the package itself failed on a text"
    return {text: found[str(number)] for number, text in enumerate(wanted)}


def test_annotations_are_those_of_the_package(ours: dict[str, Annotation], stock_annotations: dict[str, Any]) -> None:
    assert len(texts()) >= 180
    assert sum(len(one.entities) for one in ours.values()) > 400
    assert sum(len(entity.relations) for one in ours.values() for entity in one.entities) > 200
    for text, annotation in ours.items():
        assert as_stock(annotation) == stock_annotations[text], text


def test_a_random_model_that_marks_everything_agrees_too(archive: Path, stock: Any, tmp_path: Path) -> None:
    # The trained model is certain of most spans; noise in its weights gives many near ties and unusual relations.
    folder = tmp_path / "noisy"
    shutil.copytree(archive, folder)
    torch.manual_seed(0)
    state = torch.load(folder / "weights.th", weights_only=True)
    noisy = {name: tensor + 0.05 * torch.randn_like(tensor) for name, tensor in state.items()}
    torch.save(noisy, folder / "weights.th")
    before = {name: tensor.clone() for name, tensor in stock.model.state_dict().items()}
    wanted = [text for text in texts() if text][:40]
    try:
        stock.model.load_state_dict(noisy)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = stock(wanted)
    finally:
        stock.model.load_state_dict(before)
    found = RadGraphAnnotator(folder, device="cpu").annotate(wanted)
    assert [as_stock(one) for one in found] == [expected[str(number)] for number in range(len(wanted))]


def swapped(encode: Any) -> Any:
    return lambda self, texts: encode(self, texts)[::-1]


def without_relations(graph: Any) -> Any:
    return lambda self, scores: [(*entity[:3], []) for entity in graph(self, scores)]


@pytest.mark.parametrize(
    ("name", "spoil", "problem"),
    [
        ("_encode", swapped, "its batch"),
        ("_encode", lambda encode: lambda self, texts: [1.001 * one for one in encode(self, texts)], "its batch"),
        ("_graph", without_relations, "entities or relations differ"),
        ("__init__", lambda init: lambda self, model, dataset: compat.model_parts(dataset), "UnsupportedVersionError"),
    ],
)
def test_a_batched_model_that_disagrees_is_not_used(
    archive: Path,
    annotator: RadGraphAnnotator,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    name: str,
    spoil: Any,
    problem: str,
) -> None:
    wanted = texts()[20:40]
    expected = annotator.annotate(wanted)
    assert "RadGraph in batches" not in caplog.text
    monkeypatch.setattr(BatchedModel, name, spoil(getattr(BatchedModel, name)))
    assert RadGraphAnnotator(archive, device="cpu").annotate(wanted) == expected
    assert "RadGraph in batches does not agree" in caplog.text and problem in caplog.text


def test_a_missing_part_of_the_package_states_the_versions() -> None:
    with pytest.raises(UnsupportedVersionError, match=r"_embedder.*installed are radgraph 0\.1\.18, transformers 5"):
        compat.model_parts(object())


def test_f1_is_that_of_the_package(ours: dict[str, Annotation], stock_annotations: dict[str, Any]) -> None:
    from radgraph import F1RadGraph

    chance = random.Random(1)
    reports = [text for text in texts() if text.split()]
    candidates, references = ["", *chance.sample(reports, 100)], ["Clear lungs.", *chance.sample(reports, 100)]
    scorer = F1RadGraph.__new__(F1RadGraph)
    torch.nn.Module.__init__(scorer)
    scorer.reward_level, scorer.radgraph = (
        "all",
        lambda wanted: {str(number): stock_annotations[text] for number, text in enumerate(wanted)},
    )
    means, rewards, _, _ = scorer(refs=references, hyps=candidates)
    nothing = Annotation((), ())
    for level, expected, value in zip(Level, rewards, means, strict=True):
        found = [
            agreement(ours[c] if c else nothing, ours.get(r, nothing), level, lower_case=False).f1
            for c, r in zip(candidates, references, strict=True)
        ]
        assert found == expected
        assert np.mean(found) == value
        assert 0 < value < 1


def test_precision_and_recall_make_up_f1_and_swap_with_the_sides(annotator: RadGraphAnnotator) -> None:
    one, other = annotator.annotate(["There is no pneumothorax. The lungs are clear.", "There is no pneumothorax."])
    there, back = (agreement(*pair, Level.SIMPLE, lower_case=True) for pair in ((one, other), (other, one)))
    assert (there.precision, there.recall, there.f1) == (back.recall, back.precision, back.f1)
    assert there.recall == 1 and 0 < there.precision < 1


def test_case_rules(annotator: RadGraphAnnotator) -> None:
    upper, lower = annotator.annotate(["No pneumothorax.", "Pneumothorax is not seen."])
    assert [e.label for e in upper.entities] == [e.label for e in lower.entities] == ["Observation::definitely absent"]
    for level in Level:
        assert agreement(upper, lower, level, lower_case=True).f1 == 1
        assert agreement(upper, lower, level, lower_case=False).f1 == 0


def test_statuses(annotator: RadGraphAnnotator) -> None:
    candidate, reference = annotator.annotate(
        ["No pneumothorax. The lungs are clear.", "No pneumothorax. Heart size is normal."]
    )
    ours, theirs = statuses(candidate, reference, lower_case=True)
    words = {e.words.lower(): s for e, s in zip(candidate.entities, ours, strict=True)}
    assert words["pneumothorax"] == "matched" and words["clear"] == "hallucinated"
    assert {e.words.lower(): s for e, s in zip(reference.entities, theirs, strict=True)}["normal"] == "missed"


def test_white_space_has_no_entities_and_order_and_repeats_are_kept(annotator: RadGraphAnnotator) -> None:
    wanted = [" \n", "No pneumothorax.", "The lungs are clear.", "No pneumothorax."]
    found = annotator.annotate(wanted)
    assert found[0] == Annotation((), ())
    assert found[1] is found[3]
    assert [" ".join(one.tokens) for one in found[1:3]] == ["No pneumothorax .", "The lungs are clear ."]


def test_each_distinct_text_is_annotated_once(annotator: RadGraphAnnotator, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(annotator, "_graphs", lambda texts: seen.extend(texts) or [[] for _ in texts])
    steps: list[tuple[int, int]] = []
    annotator.annotate(["a b", "c d", "a b"], progress=lambda done, total, _: steps.append((done, total)))
    assert seen == [["a", "b"], ["c", "d"]]
    assert steps == [(2, 2)]


def test_nothing_is_printed_nor_warned(
    archive: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
        warnings.simplefilter("error")
        RadGraphAnnotator(archive, device="cpu").annotate(["Pneumothorax", "No pneumothorax."])
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


def test_annotations_are_made_in_float32_within_autocast(
    annotator: RadGraphAnnotator, ours: dict[str, Annotation]
) -> None:
    some = list(ours)[:40]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert annotator.annotate(some) == [ours[text] for text in some]


def test_importing_it_does_not_change_the_warning_filters() -> None:
    program = (
        "import warnings, cxrreport.evaluation.radgraph.annotator\n"
        "assert warnings.filters[0] != ('default', None, DeprecationWarning, None, 0), warnings.filters[0]\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def test_transformers_is_not_modified(annotator: RadGraphAnnotator) -> None:
    import transformers
    from radgraph.allennlp.common import cached_transformers

    assert annotator.annotate(["No pneumothorax."])
    assert not hasattr(transformers.PreTrainedTokenizerFast, "encode_plus")
    assert cached_transformers.get_tokenizer.__module__ == cached_transformers.__name__
    assert not cached_transformers._model_cache


def test_spans_are_in_the_packages_order() -> None:
    from radgraph.allennlp.data.dataset_readers.dataset_utils import enumerate_spans

    for tokens in (1, 2, 3, 7, 20):
        expected = enumerate_spans(["x"] * tokens, max_span_width=4)
        assert [tuple(span) for span in span_table(tokens, 4).tolist()] == expected


def test_long_texts_are_folded_as_in_the_package(archive: Path, tmp_path: Path, stock_of: Any) -> None:
    # Texts of more than `max_length` word pieces go through the encoder in parts; 20 instead of 512 keeps this quick.
    folder = tmp_path / "short"
    shutil.copytree(archive, folder)
    config = json.loads((folder / "config.json").read_text())
    for part in (config["dataset_reader"]["token_indexers"], config["model"]["embedder"]["token_embedders"]):
        part["bert"]["max_length"] = 20
    (folder / "config.json").write_text(json.dumps(config))
    stock = stock_of(folder)
    wanted = [text for text in texts() if text][:40]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = stock(wanted)
    found = RadGraphAnnotator(folder, device="cpu").annotate(wanted)
    assert max(len(one.tokens) for one in found) > 60
    assert [as_stock(one) for one in found] == [expected[str(number)] for number in range(len(wanted))]
    assert found != RadGraphAnnotator(archive, device="cpu").annotate(wanted)


def test_rexrank_is_the_mean_of_entity_and_relation_f1() -> None:
    def graph(*, target: str = "Anatomy::definitely present", kind: str = "located_at") -> Annotation:
        entities = (
            Entity("Small", "Observation::definitely present", 0, 0, (("modify", 1),)),
            Entity("effusion", "Observation::definitely present", 1, 1, ((kind, 2),)),
            Entity("left", target, 2, 2),
        )
        return Annotation(("Small", "effusion", "left"), entities)

    bare = Annotation(("effusion",), (Entity("effusion", "Observation::definitely present", 0, 0),))

    def f1(candidate: Annotation, reference: Annotation) -> float:
        return rexrank(candidate, reference, lower_case=False).f1

    assert f1(graph(), graph()) == 1
    assert f1(bare, bare) == 0.5  # no relation on either side
    assert f1(graph(kind="suggestive_of"), graph()) == pytest.approx((1 + 0.5) / 2)
    # Another label of the target: one entity of three, and the relation that points to it.
    assert f1(graph(target="x"), graph()) == pytest.approx((2 / 3 + 0.5) / 2)
    assert f1(NO_ENTITIES, graph()) == 0
    # One entity of three, and no relation: its precision is whole, its recall is not.
    few = rexrank(bare, graph(), lower_case=False)
    assert (few.precision, few.recall) == (0.5, pytest.approx(1 / 6))
