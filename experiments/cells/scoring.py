"""Scores of fields against shapes, and the protocol beside them, for rows that are not of the library."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from implicit_atlas.metrics import NSD_DEFINITION, score
from implicit_atlas.shapes.shape import Shape, restore, restore_lattice


def score_fields(shapes: Sequence[Shape], fields: Iterable[Float[np.ndarray, "r r r"]]) -> dict[str, Any]:
    """{"mean", "cases"}: DSC and NSD in percent on the lattice, distances in mm on the mask's own grid.

    Args:
        shapes: the truth.
        fields: of each shape, positive inside, on the shape's lattice; taken one by one.
    """
    cases = []
    for shape, field in zip(shapes, fields, strict=True):
        lattice = score(shape.occupancy, field > 0)
        back = restore_lattice(field, shape.frame, 0.0)
        native = score(restore(shape), back, tuple(shape.frame.grid.spacing_mm))
        cases.append(
            {
                "name": shape.name,
                "dsc": 100 * lattice.dsc,
                "nsd": 100 * lattice.nsd,
                "hd95_mm": native.hd95,
                "assd_mm": native.assd,
                "dsc_native": 100 * native.dsc,
            }
        )
    names = [name for name in cases[0] if name != "name"] if cases else []
    return {"mean": {name: float(np.mean([c[name] for c in cases])) for name in names}, "cases": cases}


def protocol(method: str, degrees_of_freedom: int, parameters: int, training_shapes: int) -> dict[str, Any]:
    """What the scores mean, in the words of `implicit_atlas.tasks.evaluate.Protocol`."""
    return {
        "nsd_definition": NSD_DEFINITION,
        "tolerance_vox": 1.0,
        "resolution": 128,
        "method": method,
        "degrees_of_freedom": degrees_of_freedom,
        "parameters": parameters,
        "training_shapes": training_shapes,
    }
