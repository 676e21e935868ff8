"""Files of a reconstruction: without stray pieces, mask and mesh alike."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from atlas_samples import phantom_shapes, tiny_atlas

from implicit_atlas.fitting.code_fit import FitConfig
from implicit_atlas.io import read_mask, read_mesh
from implicit_atlas.tasks.reconstruct import reconstruct
from implicit_atlas.tasks.results import write_reconstruction


def test_a_piece_that_the_mask_nowhere_meets_is_not_written(tmp_path: Path):
    shape = phantom_shapes(1)[0]
    found = next(iter(reconstruct(tiny_atlas(), [shape], FitConfig(iterations=20))))
    whole = found.fit.field()
    corner = np.array([0.9, 0.9, 0.9])
    assert not shape.occupancy[-4:, -4:, -4:].any()

    def with_a_stray(points: np.ndarray) -> np.ndarray:
        return np.maximum(whole(points), 60 * (0.09 - np.linalg.norm(points - corner, axis=1)))

    strayed = replace(found, fit=replace(found.fit, field=lambda: with_a_stray))
    assert (strayed.fit.occupancy() & ~found.fit.occupancy()).any()
    for name, one in (("as-it-is", found), ("strayed", strayed)):
        write_reconstruction(one, tmp_path / name)
    file = f"{found.fit.name}.nii.gz"
    masks = [read_mask(tmp_path / name / file).occupancy for name in ("as-it-is", "strayed")]
    np.testing.assert_array_equal(*masks)
    mesh_file = f"meshes/{found.fit.name}.ply"
    meshes = [read_mesh(tmp_path / name / mesh_file) for name in ("as-it-is", "strayed")]
    np.testing.assert_allclose(meshes[0].vertices, meshes[1].vertices)
