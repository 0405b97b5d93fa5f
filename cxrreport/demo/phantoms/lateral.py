"""Lateral views of phantoms: what lies behind the heart and the diaphragm.

The patient looks to the left of the image: the spine is at positive x, the heart at negative x, and the diaphragm falls
towards the back, where fluid collects first.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cxrreport.demo.phantoms.drawing import Anatomy, Plane, axes, ellipse, soft
from cxrreport.demo.phantoms.findings import Name, PhantomFinding

_FLUID = {"posterior": 0.24, "small": 0.16, "large": -0.12}
"""Height of the fluid at its lowest point, y."""


def draw_lateral(
    anatomy: Anatomy, height: int, width: int, findings: tuple[PhantomFinding, ...] = (), seed: int = 0
) -> Plane:
    """Draw a lateral view. float32[H, W] in [0, 1].

    Args:
        anatomy: anatomy of the patient.
        height: number of rows.
        width: number of columns.
        findings: findings to draw. A pneumothorax is not visible, and a side cannot be told.
        seed: seed for the positions of the findings, as for `draw`.
    """
    x, y = axes(height, width)
    body = soft(1 - ellipse(x, y, 0.0, 0.1, 0.78 * anatomy.width, 1.2), 0.06)
    lung = soft(1 - ellipse(x, y, -0.02, -0.1, 0.52, 0.66), 0.08) * soft(0.42 + 0.2 * x - y, 0.03)
    spine = np.exp(-(((x - 0.50 - 0.08 * np.cos(2 * y)) / 0.09) ** 2)) * (0.16 + 0.04 * np.sin(20 * y))
    heart = soft(1 - ellipse(x, y, -0.22, 0.18, 0.26, 0.24), 0.1)
    grey: Any = body * (0.55 + anatomy.soft_tissue) - 0.33 * lung * body + spine * body + 0.22 * heart * lung
    for finding in findings:
        stream = np.random.default_rng([seed, *finding.name.encode(), *finding.side.encode()])
        grey = _paint(finding, anatomy, grey, lung, x, y, stream)
    drawn: Plane = np.clip(grey, 0.0, 1.0).astype(np.float32)
    return drawn


def _paint(
    finding: PhantomFinding,
    anatomy: Anatomy,
    grey: Any,
    lung: Any,
    x: Plane,
    y: Plane,
    rng: np.random.Generator,
) -> Any:
    large = finding.size in ("large", "severe")
    match finding.name:
        case Name.CARDIOMEGALY:
            radius = rng.uniform(0.40, 0.44) if large else rng.uniform(0.32, 0.35)
            heart = soft(1 - ellipse(x, y, -0.30 + radius / 3, 0.16, radius, radius - 0.02), 0.1)
            return np.maximum(grey, heart * lung * (0.58 + anatomy.soft_tissue))
        case Name.OEDEMA:
            haze = np.exp(-((x / 0.30) ** 2) - ((y + 0.05) / 0.32) ** 2)
            return grey + (rng.uniform(0.26, 0.32) if large else rng.uniform(0.12, 0.16)) * haze * lung
        case Name.OPACITY:
            cx, cy = rng.uniform(0.05, 0.22), rng.uniform(-0.46, -0.34)
            if finding.zone == "lower":
                cx, cy = rng.uniform(0.15, 0.28), rng.uniform(0.08, 0.20)
            size = rng.uniform(0.17, 0.21) if large else rng.uniform(0.085, 0.105)
            strength = rng.uniform(0.15, 0.18) if finding.doubtful else rng.uniform(0.26, 0.32)
            return grey + strength * soft(1 - ellipse(x, y, cx, cy, size, size), 0.22) * lung
        case Name.EFFUSION:
            level = _FLUID[finding.zone or finding.size] + rng.uniform(-0.03, 0.03)
            meniscus = level - 0.8 * np.clip(np.abs(x - 0.10) - 0.12, 0, None) ** 1.5
            fluid = soft(y - meniscus, 0.02) * soft(x - (0.02 if finding.zone else -0.18), 0.08)
            behind = soft(1 - ellipse(x, y, -0.02, -0.05, 0.54, 0.72), 0.04) * soft(0.52 + 0.2 * x - y, 0.02)
            return np.maximum(grey, fluid * behind * (0.80 + anatomy.soft_tissue))
        case Name.TUBE:
            tip = rng.uniform(-0.36, -0.26)
            line = np.exp(-(((x + 0.06 - 0.12 * (y + 0.6)) / 0.014) ** 2)) * soft(tip - y, 0.01)
            return grey + 0.28 * line
        case Name.PACEMAKER:
            box = soft(1 - (((x + 0.58) / 0.05) ** 4 + ((y + 0.42) / 0.11) ** 4), 0.2)
            return np.maximum(grey, 0.97 * box)
        case _:
            return grey
