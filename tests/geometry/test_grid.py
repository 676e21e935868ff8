"""The cube: conventions of lattices, bits as numpy has them, and CPU kernels that equal grid_sample."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from head_samples import random_head, value_and_gradients
from hypothesis import given
from hypothesis import strategies as st

from implicit_atlas.geometry import grid, kernels


@pytest.mark.parametrize(("outputs", "nodes"), [(1, 2), (3, 5), (2, 9)])
def test_kernels_equal_the_reference_in_value_and_every_gradient(outputs, nodes):
    arguments = random_head(outputs, nodes=nodes)
    ours = value_and_gradients(grid.query_maps, arguments)
    reference = value_and_gradients(grid.query_reference, arguments)
    for mine, theirs in zip(ours, reference, strict=True):
        torch.testing.assert_close(mine, theirs, atol=2e-5, rtol=1e-4)


def test_kernels_give_the_gradients_of_points_alone():
    arguments = random_head()
    expected = value_and_gradients(grid.query_reference, arguments)[2]
    points = arguments[2].requires_grad_()
    values = grid.query_maps(*arguments)
    (values * torch.linspace(-1, 1, values.numel()).view(values.shape)).sum().backward()
    torch.testing.assert_close(points.grad, expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize(("nodes", "more"), [(2, 5), (4, 5), (5, 9)])
def test_upsampling_by_matrices_equals_that_by_torch(nodes, more):
    torch.manual_seed(0)
    found = []
    maps = torch.randn(2, 6, nodes, nodes, nodes)
    for upsample in (grid.upsample_nested, grid.upsample_by_matrices):
        given = maps.clone().requires_grad_()
        values = upsample(given, more)
        (values * torch.linspace(-1, 1, values.numel()).view(values.shape)).sum().backward()
        found.append((values, given.grad))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_maps_are_read_at_their_own_points_with_exact_gradients():
    torch.manual_seed(0)
    arguments = [torch.randn(2, 5, 5, 5, 3), torch.rand(2, 60, 3) * 2.8 - 1.4]

    def reference(maps, points):
        where = points.flip(-1)[:, :, None, None]
        read = torch.nn.functional.grid_sample(
            maps.permute(0, 4, 1, 2, 3), where, padding_mode="border", align_corners=True
        )
        return read[..., 0, 0].transpose(1, 2)

    ours, expected = (value_and_gradients(query, arguments) for query in (grid.interpolate_maps, reference))
    for mine, theirs in zip(ours, expected, strict=True):
        torch.testing.assert_close(mine, theirs, atol=2e-5, rtol=1e-4)


def test_kernels_do_not_depend_on_the_number_of_threads():
    arguments = random_head()
    one = value_and_gradients(grid.query_maps, arguments)
    try:
        grid.set_threads(2)
        two = value_and_gradients(grid.query_maps, arguments)
    finally:
        grid.set_threads(1)
    for a, b in zip(one, two, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


PRINTED = """
import hashlib
import test_grid as tests
tests.grid.set_threads(1)
found = tests.value_and_gradients(tests.grid.query_maps, tests.random_head(outputs=3, hidden=32))
print(hashlib.sha256(b"".join(part.numpy().tobytes() for part in found)).hexdigest())
"""


@pytest.mark.slow
def test_compiled_code_and_what_is_kept_of_it_give_the_same_bits(tmp_path):
    paths = os.pathsep.join(path for path in sys.path if path)
    environment = {**os.environ, "PYTHONPATH": paths, "NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", PRINTED]
    compiled, kept = (
        subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    )
    assert list(tmp_path.rglob("*.nbc"))
    assert compiled == kept


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 1e38, -1e38])
def test_kernels_survive_any_coordinate(bad):
    arguments = random_head()
    arguments[2][1, 3], arguments[2][2, 5, 0] = bad, bad
    values, *gradients = value_and_gradients(grid.query_maps, arguments)
    if np.isnan(bad):
        assert values[1, 3].isnan().all() and values[2, 5].isnan().all()  # so that a loss shows it
        assert values[0].isfinite().all()
    else:
        torch.testing.assert_close(values, grid.query_reference(*arguments))
        assert all(gradient.isfinite().all() for gradient in gradients)


def test_threads_stay_within_the_machine():
    before = torch.get_num_threads()
    try:
        grid.set_threads(10_000)
        assert 1 <= kernels.get_threads() < 10_000
        kernels.set_threads(0)
        assert kernels.get_threads() == 1
    finally:
        grid.set_threads(1)
        torch.set_num_threads(before)


def test_lattice_is_cell_centred_and_its_components_run_along_their_axes():
    lattice = grid.lattice(4)
    assert lattice.shape == (4, 4, 4, 3)
    np.testing.assert_allclose(lattice[:, 0, 0, 0], [-0.75, -0.25, 0.25, 0.75])
    np.testing.assert_allclose(lattice[1, 2, 3], [-0.25, 0.25, 0.75])
    np.testing.assert_allclose(grid.map_nodes(5)[4, 0, 2], [1, -1, 0])


@pytest.mark.parametrize("resolution", [1, 5, 32])
def test_voxels_of_a_lattice_are_in_array_order(resolution):
    voxel = grid.voxel_at(grid.lattice(resolution), resolution)
    np.testing.assert_array_equal(voxel.ravel(), np.arange(resolution**3))


@given(st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_voxel_at_equals_numpy(resolution, seed):
    points = np.random.default_rng(seed).uniform(-1.5, 1.5, (50, 3)).astype(np.float32)
    cell = np.clip(np.floor((points + 1) * (resolution / 2)).astype(int), 0, resolution - 1)
    expected = np.ravel_multi_index(tuple(cell.T), (resolution,) * 3)
    np.testing.assert_array_equal(grid.voxel_at(torch.from_numpy(points), resolution), expected)


@given(st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_bits_are_read_as_numpy_packed_them(resolution, seed):
    rng = np.random.default_rng(seed)
    cubes = rng.random((3, resolution**3)) < 0.5
    voxel = rng.integers(0, resolution**3, (3, 40))
    packed = torch.from_numpy(np.packbits(cubes, axis=1))
    read = grid.read_bits(packed, torch.from_numpy(voxel))
    np.testing.assert_array_equal(read, np.take_along_axis(cubes, voxel, axis=1))


def test_jittered_points_stay_in_their_cells_and_cover_them():
    resolution = 4
    points = grid.jittered_lattice(500, resolution, 1.0, torch.Generator().manual_seed(0))
    own = torch.arange(resolution**3).view((resolution,) * 3)
    assert (grid.voxel_at(points, resolution) == own).all()
    offset = (points - grid.lattice(resolution)) * resolution
    assert offset.amin() < -0.999 and offset.amax() > 0.999
    counts = np.histogram(offset, bins=10, range=(-1, 1))[0] / offset.numel()
    np.testing.assert_allclose(counts, 0.1, atol=0.01)


def test_jitter_is_a_matter_of_its_generator():
    first, again = (grid.jittered_lattice(2, 3, 0.5, torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(first, again)
    still = grid.jittered_lattice(2, 3, 0.0, torch.Generator())
    assert torch.equal(still, grid.lattice(3).expand(2, -1, -1, -1, -1))


def read_points(maps, points):
    """Trilinear vectors of a positive map: the head's leaky ReLU lets them through as they are."""
    channels = maps.shape[0]
    nodes_last = maps.permute(1, 2, 3, 0)[None]
    head = (torch.eye(channels), torch.zeros(channels))
    return grid.query_reference(nodes_last, torch.tensor([0]), points.reshape(1, -1, 3), *head)[0]


@pytest.mark.parametrize(("nodes", "finer"), [(2, 3), (5, 9), (5, 17)])
def test_upsampling_nested_nodes_keeps_the_interpolant(nodes, finer):
    torch.manual_seed(0)
    maps = torch.rand(3, nodes, nodes, nodes)
    points = torch.rand(200, 3) * 2 - 1
    upsampled = grid.upsample_nested(maps[None], finer)[0]
    torch.testing.assert_close(
        read_points(upsampled, points), read_points(maps, points), atol=1e-5, rtol=1e-5
    )


def test_a_volume_read_at_its_nodes_is_itself():
    torch.manual_seed(0)
    volume = torch.rand(5, 5, 5)
    nodes = grid.lattice(5).view(-1, 3)
    read = grid.sample_volume(volume, nodes).view(5, 5, 5)
    torch.testing.assert_close(read, volume, atol=1e-5, rtol=1e-5)


def test_outside_of_a_volume_its_nearest_value_is_read():
    volume = torch.arange(1.0, 28.0).view(3, 3, 3)
    beyond = torch.tensor([[3.0, 0.0, 0.0], [0.0, -3.0, 0.0]])
    torch.testing.assert_close(
        grid.sample_volume(volume, beyond), torch.stack([volume[2, 1, 1], volume[1, 0, 1]])
    )


def test_as_numpy_leaves_the_graph():
    tensor = torch.ones(2, requires_grad=True)
    assert grid.as_numpy(tensor * 2).tolist() == [2, 2]


def test_without_a_folder_for_compiled_code_kernels_are_not_kept(monkeypatch):
    def no_folder(**options):
        raise RuntimeError("cannot cache function: no locator available")

    assert kernels._can_cache() == kernels.CACHED
    monkeypatch.setattr(kernels, "njit", no_folder)
    assert not kernels._can_cache()
