"""Where two groups of shapes differ: permutation tests, vertex by vertex."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.stats import false_discovery_control

from implicit_atlas.errors import InputError
from implicit_atlas.statistics.cases import Shapes, centred_block, check_at_least, vertex_blocks, vertex_count

TIE = 1 - 1e-9  # statistics that differ less are equal


@dataclass(frozen=True, eq=False)
class GroupComparison:
    """Where the mean shapes of two groups differ.

    Args:
        mean_mm: (v, 3) of all cases.
        difference_mm: (v, 3) mean of the second group less that of the first.
        share: (v,) of a vertex's variance that lies between the groups, 0 to 1; the statistic that is tested.
        p: (v,) permutation p-values.
        q: (v,) the same, adjusted for the false discovery rate.
        global_p: of the largest share of all vertices: whether the groups differ anywhere.
        permutations: relabellings compared with, all that there are if `exact`.
        exact: whether they were enumerated instead of drawn.
        groups: names of the first and the second group, in sorted order.
        sizes: cases of each.
    """

    mean_mm: Float[np.ndarray, "v 3"]
    difference_mm: Float[np.ndarray, "v 3"]
    share: Float[np.ndarray, " v"]
    p: Float[np.ndarray, " v"]
    q: Float[np.ndarray, " v"]
    global_p: float
    permutations: int
    exact: bool
    groups: tuple[str, str]
    sizes: tuple[int, int]

    def outward_mm(self, faces: Int[np.ndarray, "f 3"]) -> Float[np.ndarray, " v"]:
        """Difference along the mean surface's normals: positive where the second group reaches farther out.

        Args:
            faces: vertices of each triangle, counter-clockwise seen from outside.
        """
        corners = self.mean_mm[faces]
        across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        normals = np.zeros_like(self.mean_mm)
        np.add.at(normals, faces, across[:, None])
        length = np.linalg.norm(normals, axis=1)
        return (self.difference_mm * normals).sum(1) / np.where(length > 0, length, 1)


def compare_groups(
    shapes: Shapes, labels: Sequence | np.ndarray, permutations: int = 1000, seed: int = 0
) -> GroupComparison:
    """Permutation test, vertex by vertex, of whether two groups have the same mean shape.

    The statistic is the share of a vertex's variance between the groups: the squared length of the difference of means
    over what no relabelling changes, so that vertices compare. p = (b + 1) / (m + 1) for b of m relabellings that reach
    it (Phipson and Smyth, 2010); q by Benjamini and Hochberg (1995).

    Args:
        shapes: n aligned cases of v vertices, mm.
        labels: (n,) of exactly two kinds.
        permutations: relabellings to draw; where there are no more than that all are taken instead.
        seed: of the drawing.

    Raises:
        InputError: labels that do not match or name other than two groups, no permutations, or unusable shapes.
    """
    check_at_least(permutations, 1, "permutations")
    n, vertices = len(shapes), vertex_count(shapes, 2)
    if len(labels) != n:
        raise InputError("labels", f"are {len(labels)} for {n} shapes", "Give one label a shape.")
    names, second = np.unique(np.asarray(labels), return_inverse=True)
    if len(names) != 2:
        problem = f"name {len(names)} groups, not two ({', '.join(map(str, names[:5]))})"
        raise InputError("labels", problem, "Give both groups at least one case.")
    members, exact = _relabellings(second.astype(bool), permutations, seed)
    sizes = (n - int(second.sum()), int(second.sum()))
    weights = np.where(members, 1 / sizes[1], -1 / sizes[0])
    mean, difference = np.zeros((2, vertices, 3))
    share, reached, largest = np.zeros(vertices), np.zeros(vertices), np.zeros(len(members))
    for part, block in vertex_blocks(shapes, max(n, len(members))):
        mean[part], centred = centred_block(block)
        apart = (weights @ centred).reshape(len(members), -1, 3)
        scatter = (centred**2).reshape(n, -1, 3).sum((0, 2))
        between = (apart**2).sum(2) * (sizes[0] * sizes[1] / n) / np.where(scatter > 0, scatter, np.inf)
        difference[part], share[part] = apart[0], between[0]
        reached[part] = (between >= between[0] * TIE).sum(0)
        largest = np.maximum(largest, between.max(1))
    p, global_p = reached / len(members), float((largest >= largest[0] * TIE).mean())
    groups, others = (str(names[0]), str(names[1])), len(members) - 1
    q = false_discovery_control(p)
    return GroupComparison(mean, difference, share, p, q, global_p, others, exact, groups, sizes)


def _relabellings(
    second: Bool[np.ndarray, " n"], most: int, seed: int
) -> tuple[Bool[np.ndarray, "m n"], bool]:
    """Who is in the second group: in row 0 as it is, then in all other ways, or in so many random ones."""
    n, size = len(second), int(second.sum())
    if comb(n, size) - 1 > most:
        rng = np.random.default_rng(seed)
        return np.stack([second, *(rng.permutation(second) for _ in range(most))]), False
    ways = np.zeros((comb(n, size), n), bool)
    for way, members in zip(ways, combinations(range(n), size), strict=True):
        way[list(members)] = True
    itself = (ways == second).all(1)
    return np.concatenate([ways[itself], ways[~itself]]), True
