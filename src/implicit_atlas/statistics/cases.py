"""Shapes in dense correspondence: read in blocks of vertices, checked.

Shapes are vertices of one mesh in n cases, vertex i at the same place of the organ in each. They are read in blocks of
vertices that hold as many numbers as 32 shapes do, so that a thousand shapes on disk need little memory: beside a few
arrays of that size only n x n matrices of inner products and the results. To read in blocks is to ask for every shape
n / 32 times or more; of an array opened by `numpy.load(path, mmap_mode="r")` only the block's part is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from implicit_atlas.errors import InputError

BLOCK = 32  # shapes' worth of vertices that are held at once


@runtime_checkable
class Shapes(Protocol):
    """Vertices (v, 3) in mm of n cases: a list, an array (n, v, 3), or a class that loads one case at a time."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> np.ndarray: ...


def vertex_blocks(shapes: Shapes, rows: int) -> Iterator[tuple[slice, Float[np.ndarray, "n b 3"]]]:
    """The same vertices of all cases, so few that `rows` cases of them are no more than `BLOCK` whole ones."""
    vertices = vertex_count(shapes, 1)
    step = max(1, BLOCK * vertices // rows)
    for start in range(0, vertices, step):
        part = slice(start, min(start + step, vertices))
        block = np.empty((len(shapes), part.stop - start, 3))
        for index in range(len(shapes)):
            block[index] = checked_case(shapes, index, vertices, part)
        yield part, block


def centred_block(
    block: Float[np.ndarray, "n b 3"],
) -> tuple[Float[np.ndarray, "b 3"], Float[np.ndarray, "n coordinates"]]:
    """Mean, and differences from it; exactly 0 where all cases are the same."""
    shift = block - block[0]
    middle = shift.mean(0)
    return block[0] + middle, (shift - middle).reshape(len(block), -1)


def checked_case(
    shapes: Shapes, index: int, vertices: int, part: slice = slice(None)
) -> Float[np.ndarray, "b 3"]:
    """Vertices of one case in double precision, checked."""
    case = np.asarray(shapes[index])
    if case.shape != (vertices, 3):
        problem = f"has vertices {case.shape} where shape 0 has {(vertices, 3)}"
        raise InputError(f"shape {index}", problem, "Give all cases the vertices of one mesh, (v, 3).")
    values = case[part].astype(np.float64)
    if not np.isfinite(values).all():
        raise InputError(f"shape {index}", "has vertices that are not finite", "Leave it out or repair it.")
    return values


def vertex_count(shapes: Shapes, least: int) -> int:
    """Vertices of a case, if there are enough cases."""
    check_at_least(len(shapes), least, "shapes")
    first = np.asarray(shapes[0])
    if first.ndim != 2 or first.shape[1] != 3 or not len(first):
        raise InputError("shape 0", f"has vertices {first.shape}", "Give an array (v, 3) in mm.")
    return len(first)


def check_at_least(number: int, least: int, name: str) -> None:
    """Refuse a number that is too small."""
    if number < least:
        raise InputError(name, f"{number} is too few", f"Give at least {least}.")
