from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import stats
from typer.testing import CliRunner

from cxrreport import cli, tracking
from cxrreport.errors import InputError
from cxrreport.evaluation.agreement import Agreement, agreement
from cxrreport.evaluation.agreement.ratings import read_ratings
from cxrreport.evaluation.agreement.statistics import _fleiss_terms, fleiss_kappa, kappa, tau_b
from cxrreport.settings import AgreementSettings

HEADER = ("study_id", "report", "reader", "verdict", "preference", "minor_errors", "actionable_errors", "urgent_errors")
EXPORTED = (*HEADER, "errors", "note", "written_at")
STUDIES = 24


def export(path: Path, rows: list[tuple[Any, ...]], header: tuple[str, ...] = EXPORTED) -> Path:
    """A CSV file as the review page writes it."""
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows([header, *rows])
    return path


def row(study: str, reader: str, verdict: str, minor: int = 0, actionable: int = 0, **more: Any) -> tuple[Any, ...]:
    report, urgent, at = more.get("report", "generated"), more.get("urgent", 0), more.get("at", "2026-11-01T10:00:00Z")
    note = '\'=1+1, said "she"\nand more'
    return (study, report, reader, verdict, "A", minor, actionable, urgent, "F1: minor; F2: urgent", note, at)


@pytest.fixture
def scores(tmp_path: Path) -> Path:
    """An evaluation of two systems on 24 studies of 12 patients; `good` rises with the number of the study."""
    folder = tmp_path / "scores"
    folder.mkdir()
    rng = np.random.default_rng(0)
    rows = [
        {
            "study_id": f"s{n:02}",
            "patient_id": f"p{n // 2}",
            "system": system,
            "candidate": "a",
            "reference": "b",
            "good": n / STUDIES,
            "bad": float(rng.random()),
            "constant": 0.5,
            "omitted_findings": float(-n),
            "mean_logprob": -float(n) if system == "model" else None,
        }
        for system in ("model", "blank")
        for n in range(STUDIES)
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "studies.parquet")
    metrics = {"good": {"numbers": ["good"]}}
    (folder / "scores.json").write_text(json.dumps({"conditions": {"synthetic": False, "metrics": metrics}}))
    return folder


def verdicts(reader: str, noise: int = 0) -> list[tuple[Any, ...]]:
    names = ("significant", "minor", "acceptable")
    level = [min(2, n * 3 // STUDIES) for n in range(STUDIES)]
    return [
        row(
            f"s{n:02}",
            reader,
            names[(level[n] + (noise and n % noise == 0)) % 3],
            2 - level[n],
            urgent=int(level[n] == 0),
        )
        for n in range(STUDIES)
    ]


def run(tmp_path: Path, scores: Path, *files: Path, **given: Any) -> Agreement:
    return agreement(
        AgreementSettings(verdicts=files, scores=scores, output=tmp_path / "out", bootstrap_samples=100, **given)
    )


def test_metrics_are_ranked_by_their_agreement_with_readers(tmp_path: Path, scores: Path) -> None:
    files = [export(tmp_path / f"{name}.csv", verdicts(name, noise)) for name, noise in (("AB", 0), ("NA", 5))]
    found = run(tmp_path, scores, *files)
    assert found.readers == ["AB", "NA"]  # "NA" is a missing cell, and the name of the file
    assert list(found.metrics) == ["verdict", "errors", "actionable_errors"]
    ranked = list(found.metrics["verdict"])
    assert ranked.index("good") < ranked.index("bad") and ranked[-1] == "constant"
    good = found.metrics["errors"]["good"]
    assert 0.5 < good.low < good.value < good.high <= 1
    assert found.metrics["errors"]["omitted_findings"].value == pytest.approx(good.value)  # fewer omissions are better
    assert np.isnan(found.metrics["errors"]["constant"].value)
    errors = found.between_readers["errors"]
    assert errors["kappa"].value == 1 and errors["reports"] == STUDIES and "pairs" not in errors
    verdict = found.between_readers["verdict"]["kappa"]
    assert verdict.low < verdict.value < 1
    assert found.counts["unread"] == found.counts["reports_without_scores"] == found.counts["without_reader"] == 0
    written = json.loads((tmp_path / "out" / "readers.json").read_text())
    assert written["metrics"]["errors"]["constant"] == {"value": None, "low": None, "high": None}
    assert "s01" not in json.dumps(written) and "more" not in json.dumps(written)


def test_a_blind_page_needs_its_key(tmp_path: Path, scores: Path) -> None:
    rows = [row("s00", "r", "minor", 1, report="A"), row("s00", "r", "acceptable", report="B")]
    rows += [row("s01", "r", "minor", 1, report="A"), row("s23", "r", "acceptable", report="B")]
    file = export(tmp_path / "v.csv", rows)
    with pytest.raises(InputError, match=r"v\.csv, row 1: report A is of a blind page; pass its key with --key"):
        run(tmp_path, scores, file)
    pairs = [("s00", "A", "generated"), ("s00", "B", "reference"), ("s23", "B", "blank")]
    key = export(tmp_path / "key.csv", pairs, ("study_id", "report", "system"))
    found = run(tmp_path, scores, file, key=key)
    assert found.counts["not_in_key"] == 1 and found.counts["reports_without_scores"] == 1  # s01 A, and the reference
    assert found.between_readers == {} and found.metrics["verdict"]["good"].value == pytest.approx(1)
    assert "mean_logprob" not in found.metrics["verdict"]  # one report of the model has it


def test_a_table_of_ratings_may_name_a_system_like_a_report_of_a_blind_page(tmp_path: Path) -> None:
    table = tmp_path / "Excel.csv"
    table.write_text("sep=;\nstudy_id;system;rater;errors\n\"'-12\";A;'=x;2\n'-12;B;;0\n", encoding="latin-1")
    found = read_ratings([table], None)
    assert found.values == {"errors": {("-12", "A"): {"=x": 2}, ("-12", "B"): {"Excel": 0}}}


def test_invalid_rows_are_counted(tmp_path: Path, scores: Path) -> None:
    rows = [
        *(row("s00", "r", "minor", 1), row("s00", "r", "minor", 1)),  # the same twice
        *(
            row("s01", "r", "minor", 1),
            row("s01", "r", "significant", 0, 1, at="2026-11-02T00:00:00Z"),
        ),  # changed later
        *(row("s02", "r", ""), row("s03", "r", "", 1)),  # opened only; errors without a verdict
        row("gone", "r", "minor", 1),
    ]
    found = run(tmp_path, scores, export(tmp_path / "v.csv", rows))
    wanted = {"rows": 7, "duplicates": 2, "unread": 1, "without_verdict": 1, "reports_of_unknown_studies": 1}
    assert {name: found.counts[name] for name in wanted} == wanted
    assert found.counts["reports"] == 4
    ratings = read_ratings([tmp_path / "v.csv"], None)
    assert ratings.values["verdict"]["s01", "model"] == {"r": 2}
    assert ratings.values["errors"].keys() == {("s00", "model"), ("s01", "model"), ("s03", "model"), ("gone", "model")}


def test_a_table_of_public_ratings(tmp_path: Path, scores: Path) -> None:
    table = tmp_path / "ratings.csv"
    lines = [
        f"s{n:02};{system};rater {r};{(STUDIES - n) // 3}"
        for n in range(8)
        for system in ("model", "blank")
        for r in range(3)
    ]
    table.write_text("Study;System;Rater;Errors\r\n" + "\r\n".join(lines), encoding="utf-16")
    found = run(tmp_path, scores, table)
    assert list(found.metrics) == ["errors"] and len(found.readers) == 3
    errors = found.between_readers["errors"]
    assert errors["fleiss_kappa"].value == errors["weighted_kappa"].value == 1 and len(errors["pairs"]) == 3
    assert found.metrics["errors"]["good"].value == pytest.approx(
        stats.kendalltau(list(range(8)) * 2, [-((STUDIES - n) // 3) for n in range(8)] * 2).statistic
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("study_id|report|verdict\ns00|generated|minor\n", "columns study_id, report .* found study_id.report.verdict"),
        ("study_id,report,verdict\n", "has no rows"),
        ("study_id,report,note\ns00,generated,x\n", "verdict or errors are needed"),
        ("study_id,report,verdict\ns00,generated,great\n", "row 1: verdict is none of acceptable, minor, significant"),
        ("study_id,system,errors\ns00,model,-1\n", "row 1: errors is no number of errors"),
        ("study_id,system,errors\ns00,model,many\n", "row 1: errors is no number of errors"),
        ("study_id,system,errors\n,model,1\n", "row 1: study_id or report is missing"),
        ("study_id,system,errors\ns00,model,1\ns00,model,2\n", "row 2: 'v' rates report model of study s00 twice"),
        ("study_id,system,errors\ns00,model,\n", "no report has a verdict or errors"),
        (
            "study_id,system,errors\ns00,MedVersa,1\n",
            r"none of the 1 rated reports .* \(rated: MedVersa; scored: blank, m",
        ),
        ("study_id,system,errors\nx,model,1\n", "none of the 1 rated reports"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, scores: Path, content: str, message: str) -> None:
    file = tmp_path / "v.csv"
    file.write_text(content)
    with pytest.raises(InputError, match=message):
        run(tmp_path, scores, file)


def test_rows_without_a_reader_are_counted_where_others_have_one(tmp_path: Path, scores: Path) -> None:
    rows = [row(f"s{n:02}", "" if n % 3 == 0 else "AB", "minor", 1) for n in range(9)]
    found = run(tmp_path, scores, export(tmp_path / "mixed.csv", rows))
    assert found.readers == ["AB", "mixed"] and found.counts["without_reader"] == 3
    alone = export(tmp_path / "alone.csv", [row(f"s{n:02}", "", "minor", 1) for n in range(3)])
    assert read_ratings([alone], None).counts["without_reader"] == 0


def test_readers_that_share_no_report_or_always_agree(tmp_path: Path, scores: Path) -> None:
    apart = [export(tmp_path / f"{n}.csv", [row(f"s0{n}", str(n), "minor", 1)]) for n in range(2)]
    found = run(tmp_path, scores, *apart)
    assert found.between_readers["verdict"] == {"reports": 0}
    assert np.isnan(found.metrics["verdict"]["good"].value)  # ties only
    same = export(tmp_path / "same.csv", [row(f"s{n:02}", r, "minor", 1) for n in range(6) for r in "ab"])
    found = agreement(AgreementSettings(verdicts=(same,), scores=scores, output=tmp_path / "o", bootstrap_samples=20))
    assert np.isnan(found.between_readers["verdict"]["kappa"].value)


def test_kappa_is_that_of_the_textbook() -> None:
    # Fleiss, Levin and Paik (2003), table 18.1: kappa .68 (rounded); Fleiss (1971) by hand below.
    table = np.array([[75, 1, 4], [5, 4, 1], [0, 0, 10]], dtype=float)
    assert kappa(table.ravel(), cost=1 - np.eye(3)) == pytest.approx(0.6765, abs=1e-3)
    sklearn = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(1)
    one, other = rng.integers(0, 3, 60), rng.integers(0, 3, 60)
    counts = np.zeros((3, 3))
    np.add.at(counts, (one, other), 1)
    linear = np.abs(np.subtract.outer(np.arange(3), np.arange(3))).astype(float)
    expected = sklearn.cohen_kappa_score(one, other, weights="linear")
    assert kappa(counts.ravel(), cost=linear) == pytest.approx(expected)
    counted = np.array([[3, 0], [2, 1], [0, 3], [1, 2]], dtype=float)
    agreed, by_chance = (1 + 1 / 3 + 1 + 1 / 3) / 4, 0.5
    assert fleiss_kappa(_fleiss_terms(counted).sum(axis=0)) == pytest.approx((agreed - by_chance) / (1 - by_chance))


def test_tau_of_a_resample_is_that_of_its_reports() -> None:
    rng = np.random.default_rng(2)
    one, other = rng.integers(0, 5, 40).astype(float), rng.integers(0, 3, 40).astype(float)
    measure = tau_b(one, other)
    assert measure.value == pytest.approx(stats.kendalltau(one, other).statistic)
    drawn = rng.integers(0, 40, 40)
    weights = np.bincount(drawn, minlength=40).astype(float)[None]
    assert measure.weighted(weights)[0] == pytest.approx(stats.kendalltau(one[drawn], other[drawn]).statistic, abs=1e-6)


def test_the_command_logs_numbers_only(tmp_path: Path, scores: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [str(export(tmp_path / f"{name}.csv", verdicts(name, noise))) for name, noise in (("AB", 0), ("CD", 5))]
    logged: dict[str, Any] = {}

    class Recorder(tracking.Run):
        def metrics(self, values: Mapping[str, float], *_given: Any, **_more: Any) -> None:
            logged.update(values)

        def __getattribute__(self, name: str) -> Any:
            if name in ("artifact", "text", "tags"):
                raise AssertionError(f"{name} could log what readers wrote")
            return super().__getattribute__(name)

    @contextmanager
    def started(_command: str, settings: AgreementSettings, *_given: Any, **_more: Any) -> Iterator[tracking.Run]:
        assert [path.name for path in settings.verdicts] == ["reader-1", "reader-2"]  # not who they are
        yield Recorder()

    monkeypatch.setattr(tracking, "start", started)
    given = ["agreement", "--verdicts", *files, "--scores", str(scores), "-o", str(tmp_path / "o")]
    done = CliRunner().invoke(cli.app, [*given, "--set", "bootstrap_samples=50"])
    assert done.exit_code == 0, done.output
    assert "good" in done.stdout and "between readers: verdict: kappa" in " ".join(done.stdout.split())
    assert logged["kendall_tau_b/errors/good"] > 0.8 and logged["between_readers/errors/kappa"] == 1
    assert logged["counts/readers"] == 2 and not {"AB", "CD", "s01"} & set("/".join(logged).split("/"))


def test_the_terminal_shows_five_scores_and_says_what_is_not_computed(tmp_path: Path, scores: Path) -> None:
    record = json.loads((scores / "scores.json").read_text())
    record["conditions"]["metrics"]["bad"] = {"numbers": ["bad", "omitted_findings"]}
    (scores / "scores.json").write_text(json.dumps(record))

    def shown(*rows: tuple[Any, ...], more: Sequence[str] = ()) -> str:
        file = export(tmp_path / "v.csv", list(rows))
        given = ["agreement", "--verdicts", str(file), "--scores", str(scores), "-o", str(tmp_path / "o"), "--no-track"]
        done = CliRunner().invoke(cli.app, [*given, "--set", "bootstrap_samples=20", *more])
        assert done.exit_code == 0, done.output
        shutil.rmtree(tmp_path / "o")
        return " ".join(done.output.split())

    apart = shown(*(row(f"s{n:02}", f"r{n % 2}", ("minor", "significant")[n // 12], 1) for n in range(24)))
    assert "good" in apart and "mean_logprob" in apart and "constant" not in apart and "omitted" not in apart
    assert "2 more with --all; 1 undefined, because scores or ratings are all equal" in apart
    assert "no report was rated by two readers" in apart and "nan" not in apart
    everything = shown(*verdicts("AB"), more=["--all"])
    assert "constant" in everything and "omitted_findings" in everything and "more with" not in everything
    assert "one reader: agreement" in everything
    assert "one rated report" in shown(row("s00", "a", "minor"), row("s00", "b", "significant"))
