"""Synthetic chest radiographs with varying anatomy and findings at known positions.

A phantom is drawn from formulas in normalised coordinates, x and y in [-1, 1] with y pointing down, so that it looks
the same at any resolution. The patient's left is at positive x. Dense tissue is bright, as in MONOCHROME2.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cxrreport.demo.phantoms.findings import Name, PhantomFinding

Plane = NDArray[np.float32]

# Radius of the fine nodule in normalised units: 0.28 pixels at 224, 1.1 at 896.
NODULE_RADIUS = 0.0025
_LUNG_X, _LUNG_RX, _LUNG_RY, _LUNG_Y = 0.40, 0.31, 0.66, -0.08
_DIAPHRAGM_Y = 0.46


@dataclass(frozen=True, slots=True)
class Anatomy:
    """Anatomy and position of one patient. Lengths are in normalised units, angles in radians."""

    rotation: float
    scale: float
    shift_x: float
    shift_y: float
    width: float
    """Width of the thorax relative to the average."""
    cardiothoracic: float
    """Half-width of the heart without cardiomegaly."""
    soft_tissue: float
    """Grey added by the chest wall."""
    rib_phase: float
    rib_pitch: float
    diaphragm: float
    texture: tuple[float, ...]
    """Phases of the vessel pattern."""


def sample_anatomy(rng: np.random.Generator) -> Anatomy:
    """Sample the anatomy and position of one patient."""
    return Anatomy(
        rotation=float(rng.normal(0, 0.025)),
        scale=float(rng.uniform(0.93, 1.06)),
        shift_x=float(rng.uniform(-0.05, 0.05)),
        shift_y=float(rng.uniform(-0.06, 0.06)),
        width=float(rng.uniform(0.92, 1.06)),
        cardiothoracic=float(rng.uniform(0.23, 0.27)),
        soft_tissue=float(rng.uniform(-0.03, 0.06)),
        rib_phase=float(rng.uniform(0, 2 * np.pi)),
        rib_pitch=float(rng.uniform(24.0, 30.0)),
        diaphragm=float(rng.uniform(-0.05, 0.05)),
        texture=tuple(float(p) for p in rng.uniform(0, 2 * np.pi, 8)),
    )


def in_new_position(anatomy: Anatomy, rng: np.random.Generator) -> Anatomy:
    """Return the same patient in a new position."""
    pose = sample_anatomy(rng)
    return replace(anatomy, **{name: getattr(pose, name) for name in ("rotation", "scale", "shift_x", "shift_y")})


@dataclass(frozen=True, slots=True)
class Drawing:
    """A drawn phantom.

    Args:
        grey: float32[H, W] in [0, 1], dense tissue bright, without detector noise.
        masks: bool[H, W], the area of each finding.
    """

    grey: Plane
    masks: dict[PhantomFinding, NDArray[np.bool_]]


def soft(distance: NDArray[np.floating], edge: float) -> Plane:
    """Return a linear step from 0 to 1, centred on distance 0 and twice `edge` wide. float32[H, W]."""
    step: Plane = np.clip(distance / (2 * edge) + 0.5, 0.0, 1.0).astype(np.float32)
    return step


def ellipse(x: Plane, y: Plane, cx: float, cy: float, rx: float, ry: float) -> Plane:
    """Return the distance from the centre in units of the radii, 1 on the outline. float32[H, W]."""
    distance: Plane = np.sqrt(((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2)
    return distance


def axes(height: int, width: int) -> tuple[Plane, Plane]:
    """Return the normalised coordinates of the centres of the pixels: float32[1, W] and float32[H, 1]."""
    columns, rows = (np.linspace(-1 + 1 / n, 1 - 1 / n, n, dtype=np.float32) for n in (width, height))
    return columns[None, :], rows[:, None]


def draw(anatomy: Anatomy, findings: tuple[PhantomFinding, ...], height: int, width: int, seed: int) -> Drawing:
    """Draw a phantom of `height` x `width` pixels.

    Args:
        anatomy: anatomy and position of the patient.
        findings: findings to draw; a posterior effusion is hidden by the diaphragm.
        height: number of rows.
        width: number of columns.
        seed: seed for the positions of the findings within their zones, which do not depend on the resolution.
    """
    u, v = axes(height, width)
    cos, sin = np.cos(anatomy.rotation) / anatomy.scale, np.sin(anatomy.rotation) / anatomy.scale
    x = ((cos * (u - anatomy.shift_x) + sin * (v - anatomy.shift_y)) / anatomy.width).astype(np.float32)
    y = (-sin * (u - anatomy.shift_x) + cos * (v - anatomy.shift_y)).astype(np.float32)

    grey, lungs = _chest(anatomy, x, y)
    findings = tuple(f for f in findings if f.zone != "posterior")
    masks: dict[PhantomFinding, NDArray[np.bool_]] = {}
    for finding in sorted(findings, key=lambda f: _PAINT_ORDER.index(f.name)):
        # One random stream per finding, so that adding a finding does not move the others.
        stream = np.random.default_rng([seed, *finding.name.encode(), *finding.side.encode()])
        grey, area = _paint(finding, anatomy, grey, lungs, x, y, stream)
        masks[finding] = area > 0.4
    return Drawing(np.clip(grey, 0.0, 1.0), {f: masks[f] for f in findings})


def _chest(anatomy: Anatomy, x: Plane, y: Plane) -> tuple[Plane, Plane]:
    """Draw a chest without findings; returns the image and its lung fields, both float32[H, W]."""
    ax = np.abs(x)
    body = soft(1.02 - ax - 0.9 * np.clip(-0.62 - y, 0, None) * (ax > 0.25), 0.03)
    grey = body * (0.60 + anatomy.soft_tissue) + 0.02

    floor = _DIAPHRAGM_Y + anatomy.diaphragm + 0.9 * (ax - _LUNG_X) ** 2 - 0.05 * (x < 0)
    lungs = soft(1 - ellipse(ax, y, _LUNG_X, _LUNG_Y, _LUNG_RX, _LUNG_RY), 0.05) * soft(floor - y, 0.015)
    grey -= 0.36 * lungs

    p = anatomy.texture
    radius = np.sqrt((ax - 0.16) ** 2 + (y + 0.02) ** 2)
    angle = np.arctan2(y + 0.02, ax - 0.16)
    vessels = np.sin(9 * angle + p[0] + 3 * np.sign(x)) * np.exp(-2.5 * radius)
    vessels += 0.5 * np.sin(31 * x + p[1]) * np.sin(27 * y + p[2])
    ribs = np.sin(anatomy.rib_pitch * (y - 0.55 * (ax - 0.1) ** 2 + 0.25 * ax) + anatomy.rib_phase)
    grey += lungs * (0.025 * vessels + 0.045 * np.clip(ribs, -0.2, 1))

    spine = soft(0.075 - ax, 0.01) * (0.06 + 0.02 * np.sin(22 * y + p[3]))
    mediastinum = soft(0.13 + 0.03 * np.cos(5 * y + p[4] * 0.1) - ax, 0.02) * soft(0.75 + y, 0.1)
    grey += 0.14 * mediastinum + spine
    grey += 0.05 * np.exp(-(((y + 0.66 - 0.12 * ax) / 0.022) ** 2)) * (ax > 0.08) * (ax < 0.75)  # clavicles
    grey += 0.10 * body * soft(y - floor, 0.03) * (ax < 0.74)

    heart = _heart(x, y, anatomy.cardiothoracic)
    grey = np.maximum(grey, heart * (0.70 + anatomy.soft_tissue))
    return grey.astype(np.float32), lungs


def _heart(x: Plane, y: Plane, half_width: float) -> Plane:
    return soft(1 - ellipse(x, y, 0.04 + 0.28 * half_width, 0.27, half_width, 0.21 + 0.22 * half_width), 0.06)


# As in a report, but an effusion covers a pneumothorax.
_PAINT_ORDER = (*list(Name)[:4], Name.PNEUMOTHORAX, Name.EFFUSION, Name.TUBE, Name.PACEMAKER)


def _paint(
    finding: PhantomFinding, anatomy: Anatomy, grey: Plane, lungs: Plane, x: Plane, y: Plane, rng: np.random.Generator
) -> tuple[Plane, Plane]:
    """Add one finding; returns the new image and the finding's coverage in [0, 1], both float32[H, W]."""
    sign = {"left": 1.0, "right": -1.0, "": 0.0}[finding.side]
    large = finding.size in ("large", "severe")
    hemithorax = (x * sign > 0.05).astype(np.float32) if sign else np.float32(1.0)
    match finding.name:
        case Name.CARDIOMEGALY:
            half_width = rng.uniform(0.46, 0.52) if large else rng.uniform(0.345, 0.375)
            heart = _heart(x, y, float(half_width))
            return np.maximum(grey, heart * (0.70 + anatomy.soft_tissue)), heart
        case Name.OEDEMA:
            ax = np.abs(x)
            haze = np.exp(-(((ax - 0.30) / 0.17) ** 2) - ((y - 0.02) / 0.30) ** 2).astype(np.float32)
            streaks = 1 + 0.45 * np.sin(70 * (ax + 0.6 * y) + anatomy.texture[5]) * np.sin(55 * y + anatomy.texture[6])
            strength = rng.uniform(0.30, 0.36) if large else rng.uniform(0.14, 0.18)
            return (grey + strength * haze * streaks * lungs).astype(np.float32), haze * lungs
        case Name.OPACITY:
            cx = sign * rng.uniform(0.34, 0.46)
            cy = rng.uniform(-0.46, -0.34) if finding.zone == "upper" else rng.uniform(0.08, 0.20)
            size = rng.uniform(0.19, 0.23) if large else rng.uniform(0.085, 0.105)
            wobble = 0.16 * np.sin(3 * np.arctan2(y - cy, x - cx) + rng.uniform(0, 6)).astype(np.float32)
            blob = soft(1 + wobble - ellipse(x, y, cx, cy, size, size), 0.22) * hemithorax
            strength = rng.uniform(0.17, 0.20) if finding.doubtful else rng.uniform(0.30, 0.36)
            return (grey + strength * blob * lungs).astype(np.float32), blob * lungs
        case Name.NODULE:
            cx = sign * rng.uniform(0.30, 0.52)
            cy = rng.uniform(-0.48, -0.25) if finding.zone == "upper" else rng.uniform(0.0, 0.22)
            disc = soft(1 - ellipse(x, y, cx, cy, NODULE_RADIUS, NODULE_RADIUS), 0.3)
            near = soft(1 - ellipse(x, y, cx, cy, 0.03, 0.03), 0.15)
            return (grey + 0.3 * disc).astype(np.float32), near
        case Name.PNEUMOTHORAX:
            # The collapsed lung is an ellipse shifted down and towards the hilum; the gap around it has no markings.
            reach = rng.uniform(0.50, 0.56) if large else rng.uniform(0.76, 0.80)
            edge = ellipse(x, y, sign * (_LUNG_X - 0.08), _LUNG_Y + 0.16, _LUNG_RX, _LUNG_RY) - float(reach)
            gap = soft(edge, 0.02) * lungs * hemithorax
            line = np.exp(-((edge / 0.03) ** 2)).astype(np.float32) * lungs * hemithorax
            collapsed = lungs * hemithorax * (1 - gap) * (0.12 if large else 0.03)
            return (grey * (1 - gap) + 0.03 * gap + 0.30 * line + collapsed).astype(np.float32), gap
        case Name.EFFUSION:
            level = rng.uniform(-0.14, -0.02) if large else rng.uniform(0.22, 0.28)
            meniscus = float(level) + anatomy.diaphragm - 0.9 * np.clip(np.abs(x) - 0.36, 0, None) ** 1.5
            wall = soft(1 - ellipse(np.abs(x), y, _LUNG_X, _LUNG_Y + 0.1, _LUNG_RX + 0.02, _LUNG_RY + 0.1), 0.04)
            fluid = soft(y - meniscus, 0.02) * wall * hemithorax * soft(0.62 - y, 0.02)
            return np.maximum(grey, fluid * (0.80 + anatomy.soft_tissue)), fluid
        case Name.TUBE:
            tip, bend = rng.uniform(-0.36, -0.26), rng.uniform(-0.02, 0.02)
            line = np.exp(-(((x - bend * (y + 0.6)) / 0.014) ** 2)).astype(np.float32) * soft(float(tip) - y, 0.01)
            return (grey + 0.28 * line).astype(np.float32), line
        case Name.PACEMAKER:
            cx, cy = sign * rng.uniform(0.42, 0.50), rng.uniform(-0.60, -0.52)
            box = soft((1 - (((x - cx) / 0.115) ** 4 + ((y - cy) / 0.09) ** 4)).astype(np.float32), 0.2)
            t = np.clip((y - cy) / (0.40 - cy), 0, 1)
            path = cx + (0.16 - cx) * np.sin(0.5 * np.pi * t) ** 1.5
            lead = np.exp(-(((x - path) / 0.011) ** 2)).astype(np.float32) * soft(y - cy, 0.01) * soft(0.40 - y, 0.01)
            return np.maximum(grey + 0.30 * lead, 0.97 * box).astype(np.float32), box


def expose(grey: Plane, rng: np.random.Generator, *, noise: float) -> Plane:
    """Simulate a detector with a random gamma, gain and offset, and Gaussian noise. float32[H, W] in [0, 1].

    Args:
        grey: float32[H, W] in [0, 1].
        rng: source of randomness.
        noise: standard deviation of the noise, in grey values.
    """
    gamma, gain, offset = rng.uniform(0.85, 1.2), rng.uniform(0.88, 1.05), rng.uniform(-0.02, 0.05)
    seen = gain * np.power(grey, gamma, dtype=np.float32) + offset
    return np.clip(seen + noise * rng.standard_normal(grey.shape, dtype=np.float32), 0.0, 1.0).astype(np.float32)
