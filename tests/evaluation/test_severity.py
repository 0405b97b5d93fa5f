from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cxrreport.errors import InputError
from cxrreport.evaluation.clinical.chexpert import Presence, Stated
from cxrreport.evaluation.clinical.severity import DEFAULT_WEIGHTS, ERRORS, errors, read_weights, severity_metric
from cxrreport.evaluation.clinical.statements import Statements
from cxrreport.evaluation.clinical.vocabulary import Finding

LEFT, RIGHT, BOTH = frozenset({"left"}), frozenset({"right"}), frozenset({"left", "right"})


def present(sides: frozenset[str] = frozenset(), grade: int = 0) -> Stated:
    return Stated(Presence.PRESENT, sides, grade)


@pytest.mark.parametrize(
    ("reference", "candidate", "found"),
    [
        (None, None, []),
        (None, Stated(Presence.ABSENT), []),
        (present(), None, ["omitted"]),
        (Stated(Presence.UNCERTAIN), Stated(Presence.ABSENT), ["omitted"]),
        (Stated(Presence.ABSENT), present(), ["hallucinated"]),
        (present(), Stated(Presence.UNCERTAIN), []),
        (present(LEFT), present(RIGHT), ["wrong_side"]),
        (present(BOTH), present(RIGHT), ["wrong_side"]),
        (present(LEFT), present(), []),
        (present(LEFT, 1), present(LEFT, 3), ["wrong_grade"]),
        (present(LEFT, 1), present(RIGHT, 3), ["wrong_side", "wrong_grade"]),
        (present(grade=2), present(), []),
    ],
)
def test_errors_of_a_statement(reference: Stated | None, candidate: Stated | None, found: list[str]) -> None:
    sides = [Statements.of([{Finding.PNEUMOTHORAX: one} if one else {}]) for one in (reference, candidate)]
    places = {error: np.flatnonzero(wrong).tolist() for error, wrong in errors(*sides).items()}
    place = list(Finding).index(Finding.PNEUMOTHORAX)
    assert places == {error: [place] if error in found else [] for error in ERRORS}


def write(path: Path, old: str = "", new: str = "") -> Path:
    path.write_text(DEFAULT_WEIGHTS.read_text().replace(old, new))
    return path


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("Pneumothorax,urgent", "Pneumothorax,deadly", r"row 9: omitted is none of urgent, actionable, minor, none"),
        ("Edema,", "Oedema,", r"row 5: the finding is unknown"),
        ("Edema,", "Fracture,", r"row 12: the finding is repeated"),
        ("Edema,actionable,actionable,minor,actionable\n", "", r"no row for Edema"),
        ("wrong_side", "side", r"no column wrong_side"),
    ],
)
def test_a_wrong_table_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_weights(write(tmp_path / "weights.csv", old, new))


def test_a_site_can_replace_the_table(tmp_path: Path) -> None:
    own = write(tmp_path / "weights.csv", "Cardiomegaly,minor,minor", "cardiomegaly,NONE,urgent")
    weights = read_weights(own)
    assert (weights[Finding.CARDIOMEGALY, "omitted"], weights[Finding.CARDIOMEGALY, "hallucinated"]) == (
        "none",
        "urgent",
    )
    default, other = (severity_metric(one).conditions["weights"] for one in (None, own))
    assert default != other and default.startswith("default") and other.startswith("own")
