from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from cxrreport.evaluation.statistics import Measure, PatientBootstrap, f1_of_counts, mean


def test_intervals_agree_with_scipy_when_every_patient_has_one_study() -> None:
    values = np.random.default_rng(0).beta(2, 3, size=120)
    found = PatientBootstrap([str(n) for n in range(120)], samples=4000, seed=1).interval(mean(values))
    expected = stats.bootstrap((values,), np.mean, n_resamples=4000, method="percentile", rng=2).confidence_interval
    assert found.value == pytest.approx(values.mean())
    assert found.low == pytest.approx(expected.low, abs=0.004)
    assert found.high == pytest.approx(expected.high, abs=0.004)


def test_patients_are_resampled_with_all_of_their_studies() -> None:
    # Ten studies of a patient that are all alike say no more than one: by study the interval would be too narrow.
    rng = np.random.default_rng(0)
    by_patient = rng.normal(size=40)
    values, patients = np.repeat(by_patient, 10), np.repeat(np.arange(40), 10).astype(str)
    clustered = PatientBootstrap(patients.tolist(), samples=2000, seed=0).interval(mean(values))
    naive = PatientBootstrap([str(n) for n in range(400)], samples=2000, seed=0).interval(mean(values))
    single = PatientBootstrap([str(n) for n in range(40)], samples=2000, seed=0).interval(mean(by_patient))
    assert clustered.high - clustered.low == pytest.approx(single.high - single.low, rel=0.1)
    assert clustered.high - clustered.low > 2.5 * (naive.high - naive.low)


def test_a_corpus_score_is_computed_anew_in_every_resample() -> None:
    rng = np.random.default_rng(3)
    terms = rng.integers(0, 5, size=(60, 3)).astype(float)
    patients = [str(n % 25) for n in range(60)]
    measure = Measure(terms, f1_of_counts, np.zeros(60))
    found = PatientBootstrap(patients, samples=3000, seed=0).interval(measure)
    index = {patient: [n for n in range(60) if patients[n] == patient] for patient in sorted(set(patients))}

    def slow(draw: np.ndarray) -> float:
        rows = np.concatenate([terms[index[sorted(index)[number]]] for number in draw])
        hits, false, missed = rows.sum(axis=0)
        return 2 * hits / (2 * hits + false + missed)

    samples = [slow(rng.integers(0, 25, size=25)) for _ in range(3000)]
    assert found.low == pytest.approx(np.quantile(samples, 0.025), abs=0.01)
    assert found.high == pytest.approx(np.quantile(samples, 0.975), abs=0.01)


def test_differences_are_paired() -> None:
    rng = np.random.default_rng(0)
    hard = rng.random(200)
    ours, control = mean(hard + 0.02), mean(hard)
    bootstrap = PatientBootstrap([str(n) for n in range(200)], samples=500, seed=0)
    found = bootstrap.difference(ours, control)
    assert found.value == pytest.approx(0.02)
    assert found.low == pytest.approx(0.02) and found.high == pytest.approx(0.02)
    assert bootstrap.interval(ours).low < bootstrap.interval(control).high


def test_coverage_of_the_interval() -> None:
    rng = np.random.default_rng(0)
    patients = [str(n // 2) for n in range(120)]
    inside = 0
    for seed in range(200):
        values = np.repeat(rng.normal(size=60), 2) + rng.normal(size=120)
        found = PatientBootstrap(patients, samples=300, seed=seed).interval(mean(values))
        inside += found.low <= 0 <= found.high
    assert 0.90 <= inside / 200 <= 0.985


def test_the_same_seed_gives_the_same_and_another_does_not() -> None:
    values = mean(np.random.default_rng(0).random(50))
    patients = [str(n) for n in range(50)]
    first, again, other = (PatientBootstrap(patients, samples=100, seed=seed).interval(values) for seed in (0, 0, 1))
    assert first == again != other


def test_one_patient_has_no_interval() -> None:
    found = PatientBootstrap(["a", "a"], samples=50, seed=0).interval(mean([0.2, 0.4]))
    assert found.value == pytest.approx(0.3)
    assert math.isnan(found.low) and math.isnan(found.high)


def test_an_undefined_score_stays_undefined_and_undefined_resamples_are_left_out() -> None:
    bootstrap = PatientBootstrap(["a", "b", "c"], samples=400, seed=0)
    nothing = bootstrap.interval(Measure(np.zeros((3, 3)), f1_of_counts, np.zeros(3)))
    assert math.isnan(nothing.value) and math.isnan(nothing.low)
    rare = bootstrap.interval(Measure(np.array([[1.0, 0, 0], [0, 0, 0], [0, 0, 0]]), f1_of_counts, np.zeros(3)))
    assert (rare.value, rare.low, rare.high) == (1.0, 1.0, 1.0)


def test_measures_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="do not belong together"):
        Measure(np.zeros((3, 2)), f1_of_counts, np.zeros(4))
