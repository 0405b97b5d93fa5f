from __future__ import annotations

import numpy as np
import pytest

from cxrreport.demo.phantoms.drawing import draw, expose, sample_anatomy
from cxrreport.demo.phantoms.findings import Name, PhantomFinding, masked, sample_findings


@pytest.fixture
def anatomy():
    return sample_anatomy(np.random.default_rng(3))


def test_about_forty_percent_are_normal_and_every_finding_occurs():
    rng = np.random.default_rng(0)
    drawn = [sample_findings(rng) for _ in range(3000)]
    assert 0.37 < np.mean([not findings for findings in drawn]) < 0.43
    assert {f.name for findings in drawn for f in findings} == set(Name)


@pytest.mark.parametrize("name", [Name.EFFUSION, Name.PNEUMOTHORAX, Name.OPACITY, Name.PACEMAKER, Name.NODULE])
@pytest.mark.parametrize("side", ["left", "right"])
def test_the_left_of_the_patient_is_on_the_right_of_the_image(anatomy, name, side):
    finding = PhantomFinding(name, side=side, size="small", zone="upper")
    mask = draw(anatomy, (finding,), 200, 200, 1).masks[finding]
    assert mask.any()
    columns = np.flatnonzero(mask.any(0))
    assert columns.min() > 95 if side == "left" else columns.max() < 105


@pytest.mark.parametrize(
    ("name", "less", "more"),
    [
        (Name.CARDIOMEGALY, "mild", "severe"),
        (Name.EFFUSION, "small", "large"),
        (Name.PNEUMOTHORAX, "small", "large"),
        (Name.OPACITY, "small", "large"),
    ],
)
def test_a_larger_finding_covers_a_larger_area(anatomy, name, less, more):
    side = "" if name is Name.CARDIOMEGALY else "left"
    areas = []
    for size in (less, more):
        finding = PhantomFinding(name, side=side, size=size, zone="lower" if name is Name.OPACITY else "")
        areas.append(draw(anatomy, (finding,), 200, 200, 1).masks[finding].sum())
    assert areas[1] > 1.3 * areas[0]


def test_a_phantom_looks_the_same_at_any_resolution(anatomy):
    findings = (PhantomFinding(Name.EFFUSION, "right", "large"), PhantomFinding(Name.TUBE))
    small = draw(anatomy, findings, 100, 120, 5).grey
    large = draw(anatomy, findings, 400, 480, 5).grey
    averaged = large.reshape(100, 4, 120, 4).mean((1, 3))
    assert np.abs(averaged - small).mean() < 0.01


def test_another_finding_does_not_move_the_others(anatomy):
    effusion = PhantomFinding(Name.EFFUSION, "right", "small")
    alone = draw(anatomy, (effusion,), 150, 150, 9).masks[effusion]
    together = draw(anatomy, (effusion, PhantomFinding(Name.TUBE)), 150, 150, 9).masks[effusion]
    assert np.array_equal(alone, together)


def test_the_fine_nodule_is_visible_at_896_and_not_at_224(anatomy):
    nodule = PhantomFinding(Name.NODULE, "left", zone="upper")

    def contrast(size: int) -> float:
        with_it, without = (draw(anatomy, f, size, size, 2).grey for f in ((nodule,), ()))
        return float((with_it - without).max())

    coarse = draw(anatomy, (nodule,), 896, 896, 2).grey.reshape(224, 4, 224, 4).mean((1, 3))
    clean = draw(anatomy, (), 896, 896, 2).grey.reshape(224, 4, 224, 4).mean((1, 3))
    assert contrast(896) > 0.25
    assert (coarse - clean).max() < 0.3 * contrast(896)


def test_a_large_effusion_hides_the_opacity_below_it():
    opacity = PhantomFinding(Name.OPACITY, "left", "small", "lower")
    effusion = PhantomFinding(Name.EFFUSION, "left", "large")
    assert masked((opacity, effusion)) == (effusion,)
    other = PhantomFinding(Name.EFFUSION, "right", "large")
    assert masked((opacity, other)) == (opacity, other)


def test_exposure_stays_in_range_and_is_seeded(anatomy):
    grey = draw(anatomy, (), 64, 64, 0).grey
    seen = expose(grey, np.random.default_rng(1), noise=0.05)
    assert seen.dtype == np.float32
    assert 0 <= seen.min() <= seen.max() <= 1
    assert np.array_equal(seen, expose(grey, np.random.default_rng(1), noise=0.05))
