"""Agreement of sampled reports."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from cxrreport.errors import WeightsError
from cxrreport.scoring.consensus import ReportSimilarity
from cxrreport.settings import ConsensusSettings

LEFT = "Small left pleural effusion. No pneumothorax."
RIGHT = "Small right pleural effusion. No pneumothorax."
NORMAL = "The lungs are clear. No pleural effusion or pneumothorax."
HEALTHY = "No effusion. Lungs are clear."


@pytest.mark.parametrize("measure", ["radgraph", "findings"])
def test_agreement_of_every_pair(measure, tmp_path: Path) -> None:
    similarity = ReportSimilarity(ConsensusSettings(measure=measure, radgraph="tiny"), tmp_path / "cache.sqlite")
    groups = [[LEFT, LEFT, RIGHT, NORMAL, ""], [HEALTHY, NORMAL], ["", ""], ["word " * 2000, NORMAL]]
    found = similarity(groups)
    assert [one.shape for one in found] == [(5, 5), (2, 2), (2, 2), (2, 2)]
    for one in found:
        assert (one == one.T).all() and (one >= 0).all() and (one <= 1).all()
    assert found[0][0, 1] == 1 and found[0][0, 2] < 1 and not found[0][4, :4].any()
    assert found[0][0, 2] >= found[0][0, 3] if measure == "radgraph" else found[1][0, 1] == 1
    assert not found[2][0, 1]
    copy = pickle.loads(pickle.dumps(similarity))
    assert copy.conditions == similarity.conditions and copy.conditions["measure"] == measure
    np.testing.assert_equal(copy(groups), found)


def test_missing_weights_are_named_before_anything_is_generated(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="radgraph-xl"):
        ReportSimilarity(ConsensusSettings(weights=tmp_path), tmp_path / "cache.sqlite")
