"""Synthetic organs as explicit maps of one canonical tube, in known dense correspondence.

A solid is swept along a curved centreline: at arc length t in [0, 1] and angle a its surface lies at
c(t) + r(t, a) (cos(a) N(t) + sin(a) B(t)), in mm and in the patient's axes. Radius and curvature are smooth
random functions; equal (t, a) is by construction the same place in every organ of a family.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float, Int

RINGS = 63
ANGLES = 48
TRUNCATION = 2.0


@dataclass(frozen=True, eq=False)
class Solid:
    """Surface of one synthetic organ.

    Args:
        vertices_mm: (v, 3) vertex i is the same anatomical place in every organ of the family.
        landmark_vertices: index of each named landmark.
    """

    vertices_mm: Float[np.ndarray, "v 3"]
    landmark_vertices: dict[str, int]


@dataclass(frozen=True, eq=False)
class Sweep:
    """What makes one organ: all functions of t are sampled at the rings' stations plus the two ends.

    Args:
        length_mm: length of the centreline.
        heading: (n,) direction of the centreline in its main plane, in radians.
        elevation: (n,) direction out of that plane, in radians.
        radius_mm: (n, angles) distance of the surface from the centreline.
    """

    length_mm: float
    heading: Float[np.ndarray, " n"]
    elevation: Float[np.ndarray, " n"]
    radius_mm: Float[np.ndarray, "n angles"]


class Variation:
    """Random deviations from a family's average organ, each normal and cut at two standard deviations."""

    def __init__(self, rng: np.random.Generator, strength: float) -> None:
        self.rng, self.strength = rng, strength

    def around(self, mean: float, deviation: float) -> float:
        """Return one random number around a mean."""
        return float(mean + self.strength * deviation * np.clip(self.rng.normal(), -TRUNCATION, TRUNCATION))

    def ripples(self, t: np.ndarray, angle: np.ndarray, deviation: float) -> np.ndarray:
        """Return a smooth random function of t and angle (low harmonics), round at both ends."""
        total = np.zeros((len(t), len(angle)))
        for along in range(1, 4):
            for around in range(4):
                shift, phase = self.rng.uniform(0, 2 * np.pi, 2)
                wave = np.cos(np.pi * along * t + shift)[:, None] * np.cos(around * angle + phase)
                fade = 1.0 if around == 0 else np.sin(np.pi * t)[:, None]
                total += self.around(0, 1) * wave * fade / np.hypot(along, around)
        return deviation * total / 2


def _stations() -> Float[np.ndarray, " n"]:
    """Positions of the rings along the centreline, both ends included; denser towards the rounded ends."""
    return (1 - np.cos(np.pi * np.arange(RINGS + 2) / (RINGS + 1))) / 2


def _rounded(t: np.ndarray, blunt: float) -> np.ndarray:
    """Profile that is 0 at both ends, round there, and 1 in between: 2 gives an ellipsoid, more a capsule."""
    return np.sqrt(np.maximum(1 - np.abs(2 * t - 1) ** blunt, 0))


def _bump(t: np.ndarray, centre: float, width: float) -> np.ndarray:
    return np.exp(-(((t - centre) / width) ** 2))


def _curved_tube(vary: Variation, t: np.ndarray, angle: np.ndarray) -> Sweep:
    """Curved tapering tube with a thicker head, as a hippocampus or a pancreas."""
    bend, twist = vary.around(1.7, 0.3), vary.around(0.35, 0.2)
    taper, flatness = vary.around(0.5, 0.1), vary.around(0.2, 0.07)
    head = vary.around(0.35, 0.12) * _bump(t, vary.around(0.15, 0.03), 0.17)
    profile = vary.around(6.5, 0.6) * _rounded(t, 5.0) * (1 - taper * t + head)
    section = 1 + flatness * np.cos(2 * (angle - vary.around(0.5, 0.25))) + vary.ripples(t, angle, 0.09)
    heading = bend * (t - 0.5) + vary.around(0, 0.2) * np.sin(2 * np.pi * t)
    return Sweep(vary.around(46, 4), heading, twist * np.sin(np.pi * t), profile[:, None] * section)


def _two_lobes(vary: Variation, t: np.ndarray, angle: np.ndarray) -> Sweep:
    """A large and a small lobe with a waist and a hollow on the inner side, as a kidney or a liver."""
    bend, small = vary.around(0.8, 0.3), vary.around(0.35, 0.15)
    waist = vary.around(0.2, 0.08) * _bump(t, vary.around(0.55, 0.06), 0.12)
    profile = vary.around(33, 3) * _rounded(t, 2.6) * (1 - small * t) * (1 - waist)
    depth = vary.around(0.28, 0.1) * _bump(t, vary.around(0.5, 0.05), 0.16)
    hollow = depth[:, None] * np.maximum(np.cos(angle), 0) ** 2
    flatness = vary.around(0.15, 0.08) * np.cos(2 * (angle - vary.around(0, 0.3)))
    section = 1 - flatness - hollow + vary.ripples(t, angle, 0.13)
    elevation = vary.around(0, 0.25) * t
    return Sweep(vary.around(112, 10), bend * (t - 0.5), elevation, profile[:, None] * section)


def _bulb_tube(vary: Variation, t: np.ndarray, angle: np.ndarray) -> Sweep:
    """Wide bulb that narrows into a bent tube, as a gallbladder or a stomach."""
    neck, sharpness = vary.around(0.5, 0.05), vary.around(0.09, 0.015)
    width = 1 / (1 + np.exp((t - neck) / sharpness))
    tube = vary.around(0.36, 0.05) * (1 - 0.25 * t)
    profile = vary.around(19, 1.8) * _rounded(t, 3.5) * (tube + (1 - tube) * width)
    section = 1 + vary.around(0.1, 0.05) * np.cos(2 * angle) + vary.ripples(t, angle, 0.08)
    swing = vary.around(1.3, 0.3) / (1 + np.exp(-(t - vary.around(0.62, 0.04)) / 0.08))
    heading = swing + vary.around(-0.4, 0.15) * t
    return Sweep(vary.around(100, 7), heading, vary.around(0.3, 0.2) * t**2, profile[:, None] * section)


_MAKERS: dict[str, Callable[[Variation, np.ndarray, np.ndarray], Sweep]] = {
    "curved-tube": _curved_tube,
    "two-lobe": _two_lobes,
    "bulb-tube": _bulb_tube,
}
FAMILIES: tuple[str, ...] = tuple(_MAKERS)

# Landmarks as (name, fraction of the rings, fraction of the turn); the two ends of the centreline come first.
_LANDMARKS: dict[str, tuple[tuple[str, float, float], ...]] = {
    "curved-tube": (("head medial", 0.25, 0.5), ("head lateral", 0.25, 0.0), ("body inner bend", 0.5, 0.0)),
    "two-lobe": (("hilum", 0.5, 0.0), ("outer border", 0.5, 0.5), ("large lobe front", 0.3, 0.25)),
    "bulb-tube": (("bulb front", 0.3, 0.25), ("bulb back", 0.3, 0.75), ("neck", 0.6, 0.0)),
}
_ENDS = {
    "curved-tube": ("head tip", "tail tip"),
    "two-lobe": ("large pole", "small pole"),
    "bulb-tube": ("fundus", "outlet"),
}


def make_solid(family: str, rng: np.random.Generator, variability: float) -> Solid:
    """Surface of a random organ of a family, in mm in the patient's axes, centred on its centreline.

    Args:
        family: one of `FAMILIES`.
        rng: where the randomness comes from.
        variability: 0 gives the family's average organ, 1 variability like that of real organs.
    """
    t = _stations()
    angle = 2 * np.pi * np.arange(ANGLES) / ANGLES
    sweep = _MAKERS[family](Variation(rng, variability), t, angle)
    first, last = _ENDS[family]
    landmarks = {first: 0, last: RINGS * ANGLES + 1}
    for name, ring, turn in _LANDMARKS[family]:
        landmarks[name] = 1 + round(ring * (RINGS - 1)) * ANGLES + round(turn * ANGLES) % ANGLES
    return Solid(_swept_vertices(sweep, t, angle), landmarks)


def _swept_vertices(sweep: Sweep, t: np.ndarray, angle: np.ndarray) -> Float[np.ndarray, "v 3"]:
    """First end, rings in order, last end; minus the mean of the centreline."""
    heading, elevation = sweep.heading, sweep.elevation
    zero = np.zeros_like(t)
    tangent = np.stack(
        [np.cos(heading) * np.cos(elevation), np.sin(heading) * np.cos(elevation), np.sin(elevation)], axis=1
    )
    normal = np.stack([-np.sin(heading), np.cos(heading), zero], axis=1)
    binormal = np.cross(tangent, normal)
    steps = (tangent[1:] + tangent[:-1]) / 2 * np.diff(t)[:, None]
    centre = sweep.length_mm * np.concatenate([np.zeros((1, 3)), np.cumsum(steps, axis=0)])
    centre -= centre.mean(axis=0)
    around = np.cos(angle)[:, None] * normal[:, None] + np.sin(angle)[:, None] * binormal[:, None]
    surface = centre[:, None] + sweep.radius_mm[..., None] * around
    return np.concatenate([centre[:1], surface[1:-1].reshape(-1, 3), centre[-1:]])


@lru_cache(maxsize=1)
def solid_faces() -> Int[np.ndarray, "f 3"]:
    """Triangles of every solid (the same for all of them), oriented outward."""
    ring, spoke = np.meshgrid(np.arange(RINGS - 1), np.arange(ANGLES), indexing="ij")
    here = 1 + ring * ANGLES + spoke
    beside = 1 + ring * ANGLES + (spoke + 1) % ANGLES
    quads = np.stack([here, beside, beside + ANGLES, here, beside + ANGLES, here + ANGLES], axis=-1)
    spokes = np.arange(ANGLES)
    following = (spokes + 1) % ANGLES
    last_ring, last = 1 + (RINGS - 1) * ANGLES, 1 + RINGS * ANGLES
    first_cap = np.stack([np.zeros_like(spokes), 1 + following, 1 + spokes], axis=1)
    last_cap = np.stack([np.full_like(spokes, last), last_ring + spokes, last_ring + following], axis=1)
    faces = np.concatenate([first_cap, quads.reshape(-1, 3), last_cap]).astype(np.int64)
    faces.setflags(write=False)
    return faces
