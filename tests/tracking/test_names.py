"""Names of metrics, tags and parameters: MLflow accepts them, and different names stay different."""

from __future__ import annotations

import itertools

import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric

from cxrreport.tracking.run import clean_name

PLAIN = ["radgraph_partial/model", "system/cpu: 1", "1 - rouge_l", "Röntgen.a-b", "a/b/c.d"]
ODD = ["", " ", "a//b", "/a", "a/", "a/./b", "a/../b", "..", ".", "a" * 251, "a" * 252, "b/" * 200, "å\n", "f1\t"]
PUNCTUATION = ["".join(two) for two in itertools.product("!\"#$%&'()*+,;<=>?@[\\]^`{|}~_", repeat=2)]


@pytest.mark.parametrize("name", PLAIN)
def test_a_name_that_mlflow_accepts_is_kept(name: str) -> None:
    assert clean_name(name) == name


def test_names_that_differ_stay_different_and_do_not_change_from_run_to_run() -> None:
    names = [*PLAIN, *ODD, *(f"f1{mark}macro" for mark in PUNCTUATION)]
    keys = [clean_name(name) for name in names]
    assert len(set(keys)) == len(set(names))
    assert keys == [clean_name(name) for name in names]
    assert clean_name("f1@5") == "f1_5-d7874809"  # stored runs are searched by these keys


def test_mlflow_stores_them_all(tmp_path: object) -> None:
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    run = client.create_run("0").info.run_id
    keys = [clean_name(name) for name in (*PLAIN, *ODD, *(f"f1{mark}macro" for mark in PUNCTUATION))]
    for first in range(0, len(keys), 500):
        client.log_batch(run, metrics=[Metric(key, 1.0, 0, 0) for key in keys[first : first + 500]])
    assert client.get_run(run).data.metrics.keys() == set(keys)
