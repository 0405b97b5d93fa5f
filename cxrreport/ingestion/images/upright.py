"""Detect frontal chest radiographs that are not displayed upright, whatever their header states.

The picture is compared with a coarse drawing of a chest: dark lungs, bright mediastinum and abdomen, air beside the
neck. If the drawing fits better when it is turned, the picture is not upright. If it is upright, heart and aortic arch
should be on the right of the picture. `docs/ingestion.md` gives the measured rates.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cxrreport.ingestion.images.geometry import DOUBTFUL
from cxrreport.records import View

SIDE_DOUBTFUL = "side-doubtful"
TURNED_MARGIN, LEAST_LIKENESS, MIRRORED = 0.1, 0.4, 0.33
"""Correlations: by how much a turned drawing must fit better; how well at least; how clearly the sides are swapped."""
_SIDE = 32  # pixels of the reduced picture
_SAMPLES = 8  # per pixel and axis

Plane = NDArray[np.float64]


def orientation_notes(grey: NDArray[np.uint8], view: View) -> tuple[str, ...]:
    """`orientation-doubtful` if a frontal seems to be upside down or on its side, `side-doubtful` if it seems mirrored.

    Args:
        grey: uint8[H, W] as displayed; pictures smaller than 64 x 64 have no notes.
        view: laterals have no notes.
    """
    if not view.frontal or min(grey.shape) < 2 * _SIDE:
        return ()
    picture = _ranks(grey)
    upright, *others = (_likeness(np.rot90(picture, quarters)) for quarters in range(4))
    turned = max(others)
    if turned > LEAST_LIKENESS and turned - upright > TURNED_MARGIN:
        return (DOUBTFUL,)
    if upright > LEAST_LIKENESS and float((_unit(picture - picture[:, ::-1]) * _HEART_SIDE).sum()) < -MIRRORED:
        return (SIDE_DOUBTFUL,)
    return ()


def _ranks(grey: NDArray[np.uint8]) -> Plane:
    """float64[32, 32]: ranks of the mean greys of blocks, which hardly depend on the window."""
    rows, columns = (np.linspace(0, side - 1, _SIDE * _SAMPLES).astype(np.intp) for side in grey.shape)
    blocks = grey[np.ix_(rows, columns)].reshape(_SIDE, _SAMPLES, _SIDE, _SAMPLES).mean(axis=(1, 3))
    ordered = np.sort(blocks, axis=None)
    ranks: Plane = (np.searchsorted(ordered, blocks, "left") + np.searchsorted(ordered, blocks, "right")) / 2
    return ranks


def _unit(plane: Plane) -> Plane:
    """Mean 0 and norm 1; zero for a constant plane."""
    centred = plane - plane.mean()
    norm = np.sqrt((centred**2).sum())
    unit: Plane = centred / norm if norm > 0 else centred
    return unit


def _likeness(picture: Plane) -> float:
    return float((_unit(picture) * _CHEST).sum())


def _drawings() -> tuple[Plane, Plane]:
    """A symmetric chest, and how the right of the picture differs from the left: heart, aorta and diaphragm."""
    centres = (np.arange(_SIDE) + 0.5) / _SIDE
    y, x = centres[:, np.newaxis], centres[np.newaxis, :]

    def spot(across: float, down: float, width: float, height: float) -> Plane:
        return np.exp(-((((x - across) / width) ** 2 + ((y - down) / height) ** 2) ** 2))

    from_midline = np.abs(x - 0.5)
    chest = -spot(0.3, 0.45, 0.14, 0.28) - spot(0.7, 0.45, 0.14, 0.28)
    chest += np.exp(-((from_midline / 0.09) ** 2))
    chest += 0.7 / (1 + np.exp(-(y - 0.82) / 0.04)) * (from_midline < 0.42)
    chest -= 0.6 * ((y < 0.14) & (from_midline > 0.34))
    chest -= 0.5 * ((y < 0.85) & (from_midline > 0.45))
    heart = spot(0.62, 0.62, 0.11, 0.14) + 0.4 * spot(0.57, 0.3, 0.05, 0.08)
    heart -= 0.4 * spot(0.78, 0.88, 0.14, 0.1) + 0.3 * spot(0.75, 0.35, 0.14, 0.2)
    return _unit(chest), _unit(heart - heart[:, ::-1])


_CHEST, _HEART_SIDE = _drawings()
