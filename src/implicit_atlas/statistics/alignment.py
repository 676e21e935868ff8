"""Generalised Procrustes alignment: motions that bring shapes to their mean."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from implicit_atlas.errors import InputError
from implicit_atlas.statistics.cases import Shapes, checked_case, vertex_count

ROUNDS, STILL = 100, 1e-6  # of Procrustes alignment; the mean stands still below this share of its size


@dataclass(frozen=True, eq=False)
class Alignment:
    """Aligned cases, themselves `Shapes`: case i is read anew and moved, `scale * rotation @ point + translation`.

    Args:
        shapes: the cases as they lay.
        rotations: (n, 3, 3), of determinant 1; the first case's is the identity.
        translations_mm: (n, 3).
        scales: (n,), all 1 if rigid.
        mean_mm: (v, 3) mean of the aligned cases; it lies where the first case does.
    """

    shapes: Shapes
    rotations: Float[np.ndarray, "n 3 3"]
    translations_mm: Float[np.ndarray, "n 3"]
    scales: Float[np.ndarray, " n"]
    mean_mm: Float[np.ndarray, "v 3"]

    def __len__(self) -> int:
        return len(self.scales)

    def __getitem__(self, index: int, /) -> Float[np.ndarray, "v 3"]:
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        turned = np.asarray(self.shapes[index], np.float64) @ self.rotations[index].T
        return self.scales[index] * turned + self.translations_mm[index]


def align(shapes: Shapes, scale: bool = False) -> Alignment:
    """Generalised Procrustes alignment (Gower, Psychometrika 1975) by motions without reflection.

    Args:
        shapes: n cases of v vertices, mm.
        scale: also bring all to the mean centroid size, so that only form is left.

    Raises:
        InputError: fewer than 2 cases, vertices that do not match or are not finite, or no size to scale.
    """
    count = len(shapes)
    vertices = vertex_count(shapes, 2)
    centres = np.array([checked_case(shapes, index, vertices).mean(0) for index in range(count)])
    scales = np.ones(count)
    if scale:
        sizes = [
            np.linalg.norm(checked_case(shapes, i, vertices) - centre) for i, centre in enumerate(centres)
        ]
        if not min(sizes) > 0:
            problem = "has all vertices in one place"
            raise InputError(f"shape {int(np.argmin(sizes))}", problem, "Leave it out, or do not scale.")
        scales = np.mean(sizes) / np.array(sizes)
    rotations = np.tile(np.eye(3), (count, 1, 1))
    mean = (checked_case(shapes, 0, vertices) - centres[0]) * scales[0]
    for _ in range(ROUNDS):
        before, mean = mean, np.zeros_like(mean)
        for index in range(count):
            centred = (checked_case(shapes, index, vertices) - centres[index]) * scales[index]
            rotations[index] = _rotation(centred, before)
            mean += centred @ rotations[index].T / count
        if np.linalg.norm(mean - before) <= STILL * np.linalg.norm(mean):
            break
    mean, rotations = mean @ rotations[0] + centres[0], rotations[0].T @ rotations
    translations = centres[0] - scales[:, None] * np.einsum("nij,nj->ni", rotations, centres)
    return Alignment(shapes, rotations, translations, scales, mean)


def _rotation(points: Float[np.ndarray, "v 3"], onto: Float[np.ndarray, "v 3"]) -> Float[np.ndarray, "3 3"]:
    """Rotation that brings centred points nearest to others (Kabsch, Acta Cryst. 1976)."""
    u, _, vt = np.linalg.svd(onto.T @ points)
    return u * [1, 1, np.sign(np.linalg.det(u @ vt))] @ vt
