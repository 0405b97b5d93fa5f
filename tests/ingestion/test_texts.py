"""Reports on their way into the manifest: by rules, by a function, by a language model, in any number of processes."""

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
from cxrreport.ingestion.texts import PreparedText, allowed_rewriter, prepare_text, rewrite_texts
from cxrreport.records import Report, Split
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
    assert {name: text.counts[name] for name in ("sentences", "mentioned", "edited", "dropped", "emptied")} == {
        "sentences": 3,
        "mentioned": 2,
        "edited": 1,
        "dropped": 1,
        "emptied": 0,
    }
    assert prepare_text(study("Unchanged."), settings()).counts["emptied"] == 1
    assert prepare_text(study(""), settings()).counts["emptied"] == 0


def test_references_for_testing_stay_unless_all_are_asked_for() -> None:
    text = study("Stable cardiomegaly.", Split.TEST)
    assert prepare_text(text, settings()).report == text.report
    assert prepare_text(text, settings(priors="all")).report.findings == "Cardiomegaly."
    assert prepare_text(study("Stable."), settings(priors="keep")).report.findings == "Stable."


def written(folder: Path) -> tuple[object, ...]:
    """What an ingest says of texts: rows, exclusions, and counts."""
    record = json.loads((folder / "ingest.json").read_text())
    rows = pq.read_table(folder / "manifest.parquet").to_pylist()
    return rows, pq.read_table(folder / "ledger.parquet").to_pylist(), record["texts"], record["read"], record["digest"]


REPORTS = (
    "FINDINGS: The lungs are clear. Unchanged cardiomegaly.",
    "FINDINGS: Compared with the prior study.",
    "FINDINGS: A ___ effusion has resolved, but a small pneumothorax persists.",
)


def test_workers_and_jobs_prepare_the_same_texts(
    tmp_path: Path, make_mimic: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The text of a study is prepared where the study is read, and once: a job of an array counts its own studies."""
    monkeypatch.setattr(ingestion, "STUDIES_PER_SHARD", 2)
    root = make_mimic(9)
    for number, path in enumerate(sorted(root.glob("files/**/*.txt"))):
        path.write_text(REPORTS[number % 3])
    kinds: dict[str, dict[str, object]] = {"one": {}, "two": {"workers": 2}, "array": {}}
    for name, options in kinds.items():
        given = settings(input=root, output=tmp_path / name, priors="all", placeholders="remove", **options)
        if name == "array":
            jobs = [ingest(given.model_copy(update={"shard": f"{job}/3"})).texts for job in (1, 2, 3)]
        ingest(given)
    assert written(tmp_path / "two") == written(tmp_path / "array") == written(tmp_path / "one")
    counts = written(tmp_path / "one")[2]
    assert counts["emptied"] > 0
    assert {name: sum(job.get(name, 0) for job in jobs) for name in counts} == counts
    # A run that finds parts of an earlier one counts them too.
    resumed = settings(input=root, output=tmp_path / "resumed", priors="all", placeholders="remove")
    with monkeypatch.context() as stopped:
        stopped.setattr(ingestion, "write_manifest", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            ingest(resumed)
    with monkeypatch.context() as unused:
        unused.setattr(ingestion, "read_study", lambda *_, **__: pytest.fail("a study is read twice"))
        ingest(resumed)
    assert written(tmp_path / "resumed") == written(tmp_path / "one")


def local(text: str) -> str:
    return text.replace("Stable ", "")


def remote(text: str) -> str:
    return text


local.remote = False  # type: ignore[attr-defined]
remote.remote = True  # type: ignore[attr-defined]


def rewritten(text: str, rewriter: object) -> PreparedText:
    return next(rewrite_texts([study(text)], settings(), rewriter))  # type: ignore[arg-type]


def test_a_function_takes_the_place_of_the_rules() -> None:
    text = rewritten("Stable x. No new y.", local)
    assert text.report.findings == "x. No new y."
    assert text.counts == {"sections": 1, "edited": 1, "emptied": 0}


def test_what_sends_text_away_is_refused_unless_the_user_allows_it() -> None:
    assert allowed_rewriter(settings(), local) is local
    with pytest.raises(SettingsError, match="--allow-remote"):
        allowed_rewriter(settings(), remote)
    assert allowed_rewriter(settings(allow_remote=True), remote) is remote
    with pytest.raises(SettingsError, match="does not declare"):
        allowed_rewriter(settings(allow_remote=True), lambda text: text)
    with pytest.raises(SettingsError, match="--allow-remote"):
        check_allowed(remote, "metric x", allow_remote=False)


@pytest.mark.parametrize("spec", ["nothing", "no.such.module:f", "os:no_such_function", "os:sep"])
def test_a_rewriter_that_is_not_there(spec: str) -> None:
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

    def edit(self, sentences: Sequence[str]) -> list[str]:
        self.calls.append(list(sentences))
        return [self.answer(sentence) for sentence in sentences]


def test_an_edit_of_the_model_is_used_and_the_rules_do_the_rest() -> None:
    answers = {
        "As compared to the prior, a tortuous aorta is again seen.": "a tortuous aorta is seen",
        "Stable moderate left effusion.": "Moderate effusion.",  # it lost the side
    }
    model = Model(lambda sentence: answers.get(sentence, ""))
    text = rewritten(" ".join([*answers, "Lungs are clear."]), model)
    assert text.report.findings == "A tortuous aorta is seen. Moderate left effusion. Lungs are clear."
    assert (text.counts["mentioned"], text.counts["edited"], text.counts["proposed"]) == (2, 2, 1)
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
    "control characters": lambda s: f"\x1b[31m{s}\x00",
}


@pytest.mark.parametrize("lie", LIES)
def test_a_model_that_lies_gets_no_falsehood_through(lie: str) -> None:
    """Every answer either leaves the result of the rules, or is an edit that the rules might have made."""
    for sentence in SENTENCES:
        by_rules = prepare_text(study(sentence), settings()).report.findings
        text = rewritten(sentence, Model(LIES[lie])).report.findings
        assert not mentions_prior(text)
        true = {by_rules, sentence.replace("Unchanged ", "").capitalize(), "2.5 cm nodule, no effusion."}
        assert text in true, (sentence, text)


def test_a_model_needs_its_settings_and_is_loaded_by_the_command() -> None:
    with pytest.raises(ValueError, match="need each other"):
        settings(priors_rewriter="model")
    with pytest.raises(ValueError, match=r"must contain \{sentence\}"):
        settings(priors_rewriter="model", rewriter={"model": "m", "prompt": "Edit."})
    with pytest.raises(SettingsError, match=r"runs\.ingest"):
        allowed_rewriter(settings(priors_rewriter="model", rewriter={"model": "m"}))


def test_another_model_does_not_resume(tmp_path: Path, make_mimic: Callable[..., Path]) -> None:
    given = settings(input=make_mimic(3), output=tmp_path / "out", priors="all")
    ingest(given, rewriter=Model(lambda _: ""))
    assert json.loads((tmp_path / "out" / "ingest.json").read_text())["settings"]["rewriter_digest"] == "d" * 64
    other = Model(lambda _: "")
    other.digest = "e" * 64
    with pytest.raises(Exception, match="rewriter_digest"):
        ingest(given, rewriter=other)
