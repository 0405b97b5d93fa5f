"""What edits the mentions of prior studies: the rules, a function of the user, or a language model that may lie."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cxrreport.errors import InputError, SettingsError
from cxrreport.ingestion import ingest as ingestion
from cxrreport.ingestion.ingest import ingest
from cxrreport.ingestion.study_plan import StudyPlan
from cxrreport.ingestion.texts import PreparedText, Rewriter, allowed_rewriter, prepare_text, propose_edits
from cxrreport.records import Progress, Reason, Report, Split
from cxrreport.reports.priors import mentions_prior
from cxrreport.settings import IngestSettings
from cxrreport.user_functions import check_allowed


def settings(**changes: object) -> IngestSettings:
    return IngestSettings.model_validate({"input": "in", "output": "out"} | changes)


def study(text: str, split: Split = Split.TRAIN) -> StudyPlan:
    report = Report(findings=text, indication="Stable angina.")
    return StudyPlan(study_id="s", patient_id="p", split=split, report=report, candidates=(), only_first=True)


def test_training_texts_lose_priors() -> None:
    text = prepare_text(study("Stable cardiomegaly. No new effusion. Clear lungs."), settings())
    assert text.report == Report(findings="Cardiomegaly. Clear lungs.", indication="Stable angina.")
    assert text.counts == {"sentences": 3, "mentioned": 2, "edited": 1, "dropped": 1} and text.excluded is None
    emptied = prepare_text(study("Unchanged."), settings())
    assert emptied.counts["emptied"] == 1 and emptied.excluded
    assert emptied.excluded[0] is Reason.EMPTY_SECTIONS and "without mentions" in emptied.excluded[1]
    assert prepare_text(study("Unchanged."), settings(require_report=False)).excluded is None
    empty = prepare_text(study(""), settings())
    assert empty.counts == {} and empty.excluded == (Reason.EMPTY_SECTIONS, "")


def test_references_for_testing_stay_unless_all_are_asked_for() -> None:
    text = study("Stable cardiomegaly.", Split.TEST)
    assert prepare_text(text, settings()).report == text.report
    assert prepare_text(text, settings(priors="all")).report.findings == "Cardiomegaly."
    assert prepare_text(study("Stable."), settings(priors="keep")).report.findings == "Stable."


def local(text: str) -> str:
    return text.replace("Stable ", "")


def remote(text: str) -> str:
    return text


local.remote = False  # type: ignore[attr-defined]
remote.remote = True  # type: ignore[attr-defined]


def silent(_done: int, _total: int, _label: str) -> None:
    """Ignore progress."""


def rewritten(text: str, rewriter: Rewriter) -> PreparedText:
    """The text of a study by a function, or by a model in the way of `ingest`."""
    given = study(text)
    if callable(rewriter):
        return prepare_text(given, settings(), rewriter=rewriter)
    (proposals,) = propose_edits([given], settings(), rewriter, silent)
    return prepare_text(given, settings(), proposals=proposals)


def test_a_function_replaces_the_rules() -> None:
    text = rewritten("Stable x. No new y.", local)
    assert text.report.findings == "x. No new y."
    assert text.counts == {"sections": 1, "edited": 1}


def test_remote_functions_are_refused_unless_allowed() -> None:
    assert allowed_rewriter(settings(), local) is local
    with pytest.raises(SettingsError, match="--allow-remote"):
        allowed_rewriter(settings(), remote)
    assert allowed_rewriter(settings(allow_remote=True), remote) is remote
    with pytest.raises(SettingsError, match="does not declare"):
        allowed_rewriter(settings(allow_remote=True), lambda text: text)
    with pytest.raises(SettingsError, match="--allow-remote"):
        check_allowed(remote, "metric x", allow_remote=False)


@pytest.mark.parametrize("spec", ["nothing", "no.such.module:f", "os:no_such_function", "os:sep"])
def test_a_missing_rewriter(spec: str) -> None:
    with pytest.raises(SettingsError, match="priors_rewriter"):
        allowed_rewriter(settings(priors_rewriter=spec))


def test_a_function_that_fails_does_not_quote_the_report() -> None:
    def broken(text: str) -> str:
        raise ValueError(text)

    broken.remote = False  # type: ignore[attr-defined]
    with pytest.raises(InputError) as caught:
        rewritten("Secret words.", broken)
    assert "Secret" not in str(caught.value) and caught.value.__cause__ is None


class Model:
    """Answers as a language model might; `answer` gets the sentence."""

    digest = "d" * 64

    def __init__(self, answer: Callable[[str], str]) -> None:
        self.answer = answer
        self.calls: list[list[str]] = []

    def edit(self, sentences: Sequence[str], progress: Progress) -> list[str]:
        self.calls.append(list(sentences))
        return [self.answer(sentence) for sentence in sentences]


def test_the_models_edit_is_used_and_the_rules_edit_the_rest() -> None:
    answers = {
        "As compared to the prior, a tortuous aorta is again seen.": "a tortuous aorta is seen",
        "Stable moderate left effusion.": "Moderate effusion.",  # it lost the side
    }
    model = Model(lambda sentence: answers.get(sentence, ""))
    text = rewritten(" ".join([*answers, "Lungs are clear."]), model)
    assert text.report.findings == "A tortuous aorta is seen. Moderate left effusion. Lungs are clear."
    assert (text.counts["mentioned"], text.counts["edited"]) == (2, 2)
    assert (text.counts["accepted"], text.counts["rejected"], text.counts["unchanged"]) == (1, 1, 0)
    assert model.calls == [list(answers)]


SENTENCES = (
    "Unchanged small left pleural effusion.",
    "There is no new consolidation or pneumothorax.",
    "Previously seen large right effusion is now small.",
    "Stable 2.5 cm nodule, no effusion.",
    "Compared with the prior, the endotracheal tube has been removed.",
    "Rib fractures with no significant change in displacement.",
    "Interval increase in possible edema, stable cardiomegaly.",
)
LIES: dict[str, Callable[[str], str]] = {
    "inverts": lambda s: s.replace("no new", "new").replace("Unchanged small", "No").replace("Stable", "No"),
    "drops a negation": lambda s: s.replace("no ", "").replace("new ", "").replace("Unchanged ", ""),
    "adds": lambda s: s.replace("Unchanged ", "").rstrip(".") + " and a large pneumothorax.",
    "keeps": lambda s: s,
    "loops": lambda s: f"{s.replace('Unchanged ', '').replace('Stable ', '')} " * 9,
    "prose": lambda s: f"Sure! Here is the sentence without mentions of prior studies: {s}",
    "nothing": lambda s: "",
    "none": lambda s: "NONE",
    "markup": lambda s: f"<b>{s.replace('Stable ', '')}</b>",
    "changes numbers": lambda s: s.replace("Stable ", "").replace("2.5", "25"),
    "splits numbers": lambda s: s.replace("Stable ", "").replace("2.5", "2 5"),
    "moves commas": lambda s: s.replace("Stable ", "").replace("nodule, no", "nodule no").replace("no ", "no, "),
    "shuffles": lambda s: " ".join(reversed(s.rstrip(".").split())),
    "other side": lambda s: s.replace("Unchanged ", "").replace("left", "right"),
    "certain": lambda s: s.replace("possible ", "").replace("Interval increase in ", "").replace("stable ", ""),
    "past as present": lambda s: s.replace("Previously seen ", "").replace("is now small", "is seen"),
    "other letters": lambda s: s.replace("Stable ", "").replace("o", "\u043e"),
    "hidden letters": lambda s: s.replace("Unchanged ", "").replace("small", "sm\u200ball"),
    "no case": lambda s: s.replace("Compared with the prior, ", "").upper(),
    "one more sentence": lambda s: s.replace("Unchanged ", "") + " No pneumothorax.",
    "two lines": lambda s: s.replace("Stable ", "") + "\nThere is edema.",
    "reasons": lambda s: f"<think>{s}</think>",
    "brackets": lambda s: f"[{s.replace('Unchanged ', '')}]",
    "the rest": lambda s: s.partition(" ")[2],
    "the end": lambda s: " ".join(s.split()[-3:]),
    "one word": lambda s: s.split()[-1],
    "very long": lambda s: "effusion " * 20_000,
    "control characters": lambda s: f"\x1b[31m{s}\x00",
}


@pytest.mark.parametrize("lie", LIES)
def test_a_model_that_invents_edits_is_rejected(lie: str) -> None:
    """Every answer either leaves the result of the rules, or is an edit that the rules might have made."""
    for sentence in SENTENCES:
        by_rules = prepare_text(study(sentence), settings()).report.findings
        text = rewritten(sentence, Model(LIES[lie])).report.findings
        assert not mentions_prior(text)
        true = {by_rules, sentence.replace("Unchanged ", "").capitalize()}
        assert text in true, (sentence, text)


def test_a_model_needs_its_settings_and_is_loaded_by_the_command() -> None:
    with pytest.raises(ValueError, match="need each other"):
        settings(priors_rewriter="model")
    with pytest.raises(ValueError, match=r"must contain \{sentence\}"):
        settings(priors_rewriter="model", rewriter={"model": "m", "prompt": "Edit."})
    with pytest.raises(SettingsError, match=r"runs\.ingest"):
        allowed_rewriter(settings(priors_rewriter="model", rewriter={"model": "m"}))


def test_another_model_does_not_resume(tmp_path: Path, make_mimic: Callable[..., Path]) -> None:
    given = settings(input=make_mimic(1), output=tmp_path / "out", priors="all")
    ingest(given, rewriter=Model(lambda _: ""))
    assert json.loads((tmp_path / "out" / "ingest.json").read_text())["settings"]["rewriter_digest"] == "d" * 64
    other = Model(lambda _: "")
    other.digest = "e" * 64
    with pytest.raises(Exception, match="rewriter_digest"):
        ingest(given, rewriter=other)


@pytest.fixture
def root(make_mimic: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(ingestion, "STUDIES_PER_SHARD", 3)
    root = make_mimic(12)
    for number, path in enumerate(sorted(root.rglob("s*.txt"))):
        path.write_text(("FINDINGS: Unchanged cardiomegaly.\nIMPRESSION: No change.", "IMPRESSION: Clear.")[number % 2])
    return root


def test_a_function_runs_in_this_process_once_per_study(root: Path, tmp_path: Path) -> None:
    """It may hold a model, or be a function that cannot be pickled."""
    seen: list[str] = []

    def rewriter(text: str) -> str:
        seen.append(text)
        if len(seen) == 25:
            raise ValueError(text)
        return "Rewritten."

    rewriter.remote = False  # type: ignore[attr-defined]
    settings = IngestSettings(input=root, output=tmp_path / "out", priors="all", workers=2)
    with pytest.raises(InputError, match=r"the rewriter failed on the findings of study \d+"):
        ingest(settings, rewriter=rewriter)
    before = len(seen)
    summary = ingest(settings, rewriter=rewriter)
    assert summary.texts == {"edited": 36, "sections": 36} and summary.resumed
    assert before == 25 and len(seen) < 25 + 36  # saved parts are not rewritten again
    assert set(pq.read_table(tmp_path / "out" / "manifest.parquet")["findings"].to_pylist()) == {"Rewritten.", ""}


def test_parts_by_another_function_are_made_again(root: Path, tmp_path: Path) -> None:
    def rewriter(text: str) -> str:
        return "Rewritten."

    rewriter.remote = False  # type: ignore[attr-defined]
    for shard in ("1/2", "2/2"):
        ingest(IngestSettings(input=root, output=tmp_path / "out", priors="all", shard=shard))
    assert (
        "sections" in ingest(IngestSettings(input=root, output=tmp_path / "out", priors="all"), rewriter=rewriter).texts
    )
