from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from cxrreport.evaluation.statistics import Measure, PatientBootstrap, f1_of_counts, holm, mean, p_value


def test_intervals_agree_with_scipy_when_every_patient_has_one_study() -> None:
    values = np.random.default_rng(0).beta(2, 3, size=120)
    found = PatientBootstrap([str(n) for n in range(120)], samples=4000, seed=1).interval(mean(values))
    expected = stats.bootstrap((values,), np.mean, n_resamples=4000, method="percentile", rng=2).confidence_interval
    assert found.value == pytest.approx(values.mean())
    assert found.low == pytest.approx(expected.low, abs=0.004)
    assert found.high == pytest.approx(expected.high, abs=0.004)


def test_patients_are_resampled_with_all_of_their_studies() -> None:
    # Ten equal studies of one patient have the information of one: by study the interval would be too narrow.
    rng = np.random.default_rng(0)
    by_patient = rng.normal(size=40)
    values, patients = np.repeat(by_patient, 10), np.repeat(np.arange(40), 10).astype(str)
    clustered = PatientBootstrap(patients.tolist(), samples=2000, seed=0).interval(mean(values))
    naive = PatientBootstrap([str(n) for n in range(400)], samples=2000, seed=0).interval(mean(values))
    single = PatientBootstrap([str(n) for n in range(40)], samples=2000, seed=0).interval(mean(by_patient))
    assert clustered.high - clustered.low == pytest.approx(single.high - single.low, rel=0.1)
    assert clustered.high - clustered.low > 2.5 * (naive.high - naive.low)


def test_a_corpus_score_is_recomputed_in_every_resample() -> None:
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
    ours, baseline = mean(hard + 0.02), mean(hard)
    bootstrap = PatientBootstrap([str(n) for n in range(200)], samples=500, seed=0)
    found = bootstrap.difference(ours, baseline)
    assert found.value == pytest.approx(0.02)
    assert found.low == pytest.approx(0.02) and found.high == pytest.approx(0.02)
    assert bootstrap.interval(ours).low < bootstrap.interval(baseline).high


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


def test_undefined_scores_and_resamples() -> None:
    bootstrap = PatientBootstrap(["a", "b", "c"], samples=400, seed=0)
    nothing = bootstrap.interval(Measure(np.zeros((3, 3)), f1_of_counts, np.zeros(3)))
    assert math.isnan(nothing.value) and math.isnan(nothing.low)
    rare = bootstrap.interval(Measure(np.array([[1.0, 0, 0], [0, 0, 0], [0, 0, 0]]), f1_of_counts, np.zeros(3)))
    assert (rare.value, rare.low, rare.high) == (1.0, 1.0, 1.0)


def test_measures_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="have different numbers of rows"):
        Measure(np.zeros((3, 2)), f1_of_counts, np.zeros(4))


def patients_of(count: int) -> list[str]:
    return [f"{n // 2:03}" for n in range(count)]


def test_the_interval_is_that_of_scipy_over_patients() -> None:
    values = np.random.default_rng(0).random(40)
    found = PatientBootstrap(patients_of(40), samples=500, seed=3).interval(mean(values))
    by_patient = values.reshape(20, 2)
    expected = stats.bootstrap(
        (np.arange(20),),
        lambda drawn, axis=-1: by_patient[drawn].mean(axis=(-1, -2)),
        n_resamples=500,
        batch=256,
        vectorized=True,
        method="percentile",
        rng=np.random.default_rng(3),
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_the_p_value_is_that_of_scipy_with_patients_exchanged_whole() -> None:
    rng = np.random.default_rng(0)
    ours = rng.random(40)
    theirs = ours + rng.normal(0, 0.1, 40)
    found = p_value(mean(ours), mean(theirs), patients_of(40), samples=2000, seed=0)
    expected = stats.permutation_test(
        (ours.reshape(20, 2).mean(1), theirs.reshape(20, 2).mean(1)),
        lambda x, y, axis: (x - y).mean(axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=2000,
        rng=np.random.default_rng(0),
    )
    assert found == pytest.approx(expected.pvalue)
    assert p_value(mean(ours), mean(ours), patients_of(40), samples=500, seed=0) == 1
    assert p_value(mean(ours), mean(ours + 1), patients_of(40), samples=500, seed=0) < 0.01
    assert math.isnan(p_value(mean(ours[:2]), mean(theirs[:2]), patients_of(2), samples=500, seed=0))


def test_the_p_value_of_a_corpus_score_exchanges_its_terms() -> None:
    rng = np.random.default_rng(1)
    one, other = (Measure(rng.integers(0, 9, (12, 3)).astype(float), f1_of_counts, np.zeros(12)) for _ in range(2))
    found = p_value(one, other, patients_of(12), samples=10_000, seed=0)
    differences = []
    for number in range(2**6):
        swap = np.repeat([bool(number >> n & 1) for n in range(6)], 2)[:, None]
        first, second = np.where(swap, other.terms, one.terms), np.where(swap, one.terms, other.terms)
        differences.append(f1_of_counts(first.sum(0)) - f1_of_counts(second.sum(0)))
    observed = one.value - other.value
    tails = [np.mean(np.array(differences) <= observed + 1e-12), np.mean(np.array(differences) >= observed - 1e-12)]
    assert found == pytest.approx(min(1.0, 2 * min(tails)))


def test_holm() -> None:
    found = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": math.nan})
    assert {name: p for name, p in found.items() if name != "d"} == pytest.approx({"a": 0.03, "c": 0.06, "b": 0.06})
    assert math.isnan(found["d"])
    assert holm({"a": 0.7, "b": 0.9}) == {"a": 1.0, "b": 1.0}


def test_weights_by_study_and_sums_by_patient_give_the_same_bounds() -> None:
    by_sums = mean(np.random.default_rng(0).random(60))
    by_study = Measure(by_sums.terms, by_sums.score, by_sums.values, lambda w: by_sums.score(w @ by_sums.terms))
    bootstrap = PatientBootstrap([f"p{n // 3}" for n in range(60)], samples=200, seed=0)
    together, apart = bootstrap.interval(by_sums), bootstrap.interval(by_study)
    assert (together.low, together.high) == (pytest.approx(apart.low, abs=1e-12), pytest.approx(apart.high, abs=1e-12))
