"""Correction of a completed shape at clicks that contradict it: kriging of what its signed distance lacks.

A search may end at a shape that many clicks contradict: one that fills the bend of a thin organ, say. Around clicks
that lie on the wrong side by more than `GROSS`, the signed distance gets a smooth addition, the most probable one of a
Gaussian process of Matérn covariance given all labels there (Laplace's approximation: Rasmussen and Williams, Gaussian
Processes for Machine Learning, 2006, algorithm 3.1). Elsewhere the shape stays as it is. Lengths are shares of half the
mean side of the shape's cube, as in cube coordinates.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from scipy.linalg import cho_factor, cho_solve
from scipy.spatial import KDTree
from scipy.spatial.distance import cdist

from implicit_atlas.completion.click_sides import GROSS, MOST, Beside
from implicit_atlas.geometry.distance import nearest_empty
from implicit_atlas.geometry.frame import Frame
from implicit_atlas.geometry.grid import sample_volume
from implicit_atlas.shapes.sampling import Observations
from implicit_atlas.support.blas import one_thread

# Chosen on `val` of pancreas, hippocampus and liver (docs/LOG.md, 2026-11-27, night).
REACH = 0.3  # of the correction about such a click (a Gaussian's standard deviation)
DEVIATION, LENGTH = 16 / 64, 0.3  # of the process
SOFTNESS = 0.35 / 64  # distance to the surface at which labels are trusted with odds of e
ON_SURFACE = 0.5 / 64  # clicks on the boundary are as near as this, beside their own spread
COARSE = 2  # nodes of the shape's lattice from one place where the addition is evaluated to the next
FAINT = 1e-3  # corrections of less than this share are none
BAND = 0.3  # the addition is evaluated where the shape's surface is nearer than this
CHUNK = 256  # places of which kernels are held at once
STEPS, SETTLED = 40, 1e-4  # of Newton's method, at most; it ends where the objective falls by less


@dataclass(frozen=True, eq=False)
class Clicks:
    """What was observed, beside a shape.

    Args:
        places: (n, 3) from the middle of the shape's cube, along its axes; equal lengths are equal in mm.
        distance: (n,) to the shape's surface, positive inside.
        sign: (n,) 1 inside, -1 outside, 0 where the distance is known: on the boundary, and at both sides of clicks.
        aim: (n,) that distance, positive inside.
        spread: (n,) how far it may be off; infinite of others.
        weight: (n,) of each.
    """

    places: Float[np.ndarray, "n 3"]
    distance: Float[np.ndarray, " n"]
    sign: Float[np.ndarray, " n"]
    aim: Float[np.ndarray, " n"]
    spread: Float[np.ndarray, " n"]
    weight: Float[np.ndarray, " n"]

    def part(self, kept: np.ndarray) -> Clicks:
        """Some of them."""
        return Clicks(*(getattr(self, name)[kept] for name in self.__dataclass_fields__))

    def contradicted(self) -> np.ndarray:
        """Which of them the shape grossly contradicts."""
        off = np.abs(self.distance - self.aim) - np.where(np.isfinite(self.spread), self.spread, 0)
        return np.where(self.sign == 0, off, -self.sign * self.distance) > GROSS

    def surprise(self, value: Float[np.ndarray, " n"]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Negative log likelihood of each where the surface is so far away, its slope and its curvature."""
        margin = self.sign * value / SOFTNESS
        wrong = np.exp(-np.logaddexp(0, margin))
        labelled = self.sign != 0
        near = np.where(labelled, 0, 1 / self.spread**2)
        off = value - self.aim
        cost = np.where(labelled, np.logaddexp(0, -margin), near * off**2 / 2)
        slope = np.where(labelled, -self.sign * wrong / SOFTNESS, near * off)
        curvature = np.where(labelled, wrong * (1 - wrong) / SOFTNESS**2, near)
        return self.weight * cost, self.weight * slope, self.weight * curvature


@one_thread
def corrected(
    values: Float[np.ndarray, "r r r"], frame: Frame, seen: Observations, beside: Beside | None = None
) -> Float[np.ndarray, "r r r"]:
    """A shape's field with its surface moved where clicks contradict it; the same array where none does.

    Args:
        values: on the lattice of the shape's cube, positive inside.
        frame: where the cube lies.
        seen: what was observed, in RAS millimetres.
        beside: places at the sides of clicks, of which the distance to the boundary is known, too.

    Returns:
        `values`, or corrected signed distances to the surface, in shares of half the cube's mean side.
    """
    found = _compared(values, frame, seen, beside)
    if found is None:
        return values
    distance, clicks, half = found
    gross = clicks.places[clicks.contradicted()]
    if not len(gross):
        return values
    share = _nearness(clicks.places, gross)
    clicks, share = clicks.part(share > FAINT), share[share > FAINT]
    return distance + _addition(distance, half, clicks, share, gross)


def moved_at_random(seen: Observations, beside: Beside, draw: int) -> tuple[Observations, Beside]:
    """What a draw is corrected by: clicks on the boundary, and places beside them, moved by what they may be off."""
    rng = np.random.default_rng(seen.seed(draw))
    spread = np.where((seen.occupancy == 0.5) & np.isfinite(seen.spreads), seen.spreads, 0.0)
    points = seen.points + rng.standard_normal(seen.points.shape) * spread[:, None]
    distance_mm = beside.distance_mm + rng.standard_normal(len(beside.points)) * beside.spread_mm
    return replace(seen, points=points), replace(beside, distance_mm=distance_mm)


def misfit(
    values: Float[np.ndarray, "r r r"], frame: Frame, seen: Observations
) -> tuple[Float[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """How many mm each click is off a shape's field as it was found, and which of them it grossly contradicts.

    Labels are off where they lie on the wrong side. Of more points than `MOST` none is.
    """
    found = _compared(values, frame, seen)
    if found is None:
        return np.zeros(len(seen.points)), np.zeros(len(seen.points), bool)
    _, clicks, half = found
    off = np.where(clicks.sign == 0, np.abs(clicks.distance), np.maximum(-clicks.sign * clicks.distance, 0))
    half_mm = frame.lattice_spacing_mm[0] * (frame.resolution / 2)
    return off * half_mm / half[0], clicks.contradicted()


def field_distances(
    values: Float[np.ndarray, "r r r"], spacing: Float[np.ndarray, "3"]
) -> Float[np.ndarray, "r r r"]:
    """Distances of nodes to the surface at 0, positive inside, of values that level off away from it.

    They are values over slopes, or the distance to the nearest node beyond the surface, less that node's own, where
    that is less.
    """
    slopes = np.asarray(np.gradient(values, *spacing))
    own = np.abs(values) / np.maximum(np.linalg.norm(slopes, axis=0), 1e-6)
    inside = values > 0
    out = np.empty(values.shape, np.float32)
    for part, sign in ((inside, 1), (~inside, -1)):
        squares, nearest = nearest_empty(part, spacing)
        beyond = np.minimum(own.ravel()[nearest], np.linalg.norm(spacing) / 2)
        out[part] = sign * np.minimum(own, np.sqrt(squares) - beyond)[part]
    return out


def values_at(
    values: Float[np.ndarray, "r r r"], frame: Frame, points_mm: Float[np.ndarray, "n 3"]
) -> Float[np.ndarray, " n"]:
    """A shape's field at RAS millimetres, by trilinear interpolation; outside its cube, that of the nearest border."""
    cube = torch.from_numpy(frame.world_to_cube(points_mm))
    return sample_volume(torch.from_numpy(values), cube).numpy().astype(np.float64)


def sides_of(seen: Observations) -> Float[np.ndarray, " n"]:
    """1 inside, -1 outside, 0 on the boundary."""
    return np.sign(seen.occupancy - 0.5)


def _compared(
    values: Float[np.ndarray, "r r r"], frame: Frame, seen: Observations, beside: Beside | None = None
) -> tuple[Float[np.ndarray, "r r r"], Clicks, Float[np.ndarray, "3"]] | None:
    """A shape's signed distances, the clicks beside it and half its cube's sides; None where no click can be wrong."""
    if len(seen.points) > MOST or not (values > 0).any():
        return None
    if not (sides_of(seen) * values_at(values, frame, seen.points) <= 0).any():  # as all labels say
        return None
    half_mm = frame.lattice_spacing_mm * (frame.resolution / 2)
    unit = 1 / float(np.exp(np.log(half_mm).mean()))
    distance = field_distances(values, frame.lattice_spacing_mm * unit)
    clicks = _clicks(distance, frame, seen, beside or Beside.nothing(), half_mm * unit, unit)
    return distance, clicks, half_mm * unit


def _clicks(
    distance: Float[np.ndarray, "r r r"],
    frame: Frame,
    seen: Observations,
    beside: Beside,
    half: Float[np.ndarray, "3"],
    unit: float,
) -> Clicks:
    points, none = np.concatenate([seen.points, beside.points]), np.zeros(len(beside.points))
    cube = frame.world_to_cube(points)
    beyond = np.linalg.norm((cube - cube.clip(-1, 1)) * half, axis=1)
    found = values_at(distance, frame, points) - beyond
    sign = sides_of(seen)
    near = np.where(sign == 0, np.hypot(np.minimum(seen.spreads * unit, REACH), ON_SURFACE), np.inf)
    return Clicks(
        places=cube * half,
        distance=found,
        sign=np.concatenate([sign, none]),
        aim=np.concatenate([np.zeros(len(sign)), beside.distance_mm * unit]),
        spread=np.concatenate([near, np.hypot(beside.spread_mm * unit, ON_SURFACE)]),
        weight=np.concatenate([np.asarray(seen.weight, np.float64), none + 1]),
    )


def _addition(
    distance: Float[np.ndarray, "r r r"],
    half: Float[np.ndarray, "3"],
    clicks: Clicks,
    share: Float[np.ndarray, " n"],
    gross: Float[np.ndarray, "k 3"],
) -> Float[np.ndarray, "r r r"]:
    """What the distance lacks, at all nodes; evaluated at coarse ones near the surface, and linear between them."""
    weights = _most_probable(clicks, share) * share
    side = len(distance)
    n = side // COARSE
    middle = (np.arange(n) + 0.5) * (2 / n) - 1
    coarse = _resized(distance, n)
    near = np.flatnonzero(np.abs(coarse) < BAND)
    places = np.stack([middle[i] for i in np.unravel_index(near, coarse.shape)], axis=-1) * half
    local = _nearness(places, gross)
    near, places, local = near[local > FAINT], places[local > FAINT], local[local > FAINT]
    out = np.zeros(n**3, np.float32)
    out[near] = local * _added_at(places, clicks.places, weights)
    return _resized(out.reshape(n, n, n), side)


def _added_at(
    places: Float[np.ndarray, "n 3"], clicks: Float[np.ndarray, "k 3"], weights: Float[np.ndarray, " k"]
) -> Float[np.ndarray, " n"]:
    """Covariance of places and clicks · weights, a few places after the other: in single precision, within a cache."""
    scale = 3**0.5 / LENGTH
    to, amount = (torch.from_numpy(a).float() for a in (clicks * scale, DEVIATION**2 * weights))
    out = []
    for some in torch.from_numpy(places * scale).float().split(CHUNK):
        apart = torch.cdist(some, to)
        out.append(torch.exp(-apart).mul_(apart.add_(1)) @ amount)
    return torch.cat(out).numpy() if out else np.zeros(0, np.float32)


def _resized(volume: Float[np.ndarray, "a a a"], side: int) -> Float[np.ndarray, "b b b"]:
    """A cell-centred volume on a lattice of so many nodes a side, by linear interpolation."""
    return F.interpolate(torch.from_numpy(volume)[None, None], (side,) * 3, mode="trilinear").numpy()[0, 0]


def _most_probable(clicks: Clicks, share: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Weights a, by which the addition at the clicks is covariance · a: the mode, by damped Newton steps."""
    covariance = share[:, None] * _covariance(clicks.places, clicks.places) * share
    weights = added = np.zeros(len(share))
    cost, slope, curvature = clicks.surprise(clicks.distance)
    value = cost.sum()
    for _ in range(STEPS):
        aim, root = curvature * added - slope, np.sqrt(curvature)
        matrix = np.eye(len(share)) + root[:, None] * covariance * root
        solved = cho_solve(cho_factor(matrix, lower=True), root * (covariance @ aim))
        step, before = aim - root * solved - weights, value
        for length in 0.5 ** np.arange(10):
            tried = weights + length * step
            moved = covariance @ tried
            cost, slope, curvature = clicks.surprise(clicks.distance + moved)
            value = cost.sum() + tried @ moved / 2
            if value <= before:
                weights, added = tried, moved
                break
        if before - value < SETTLED:
            break
    return weights


def _covariance(a: Float[np.ndarray, "n 3"], b: Float[np.ndarray, "k 3"]) -> Float[np.ndarray, "n k"]:
    """Matérn covariance of smoothness 3/2."""
    apart = cdist(a, b) * (3**0.5 / LENGTH)
    return DEVIATION**2 * (1 + apart) * np.exp(-apart)


def _nearness(places: Float[np.ndarray, "n 3"], gross: Float[np.ndarray, "k 3"]) -> Float[np.ndarray, " n"]:
    """From 0 to 1: how much of the correction there is."""
    return np.exp(-((KDTree(gross).query(places)[0] / REACH) ** 2) / 2)
