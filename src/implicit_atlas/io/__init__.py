"""Reading and writing masks and surfaces with their geometry: world space is RAS millimetres."""

from implicit_atlas.io.cases import CaseFile, Cases, MaskFile, MaskSource, Problem, find_cases, list_cases
from implicit_atlas.io.formats import case_name, printable
from implicit_atlas.io.label_names import declared_labels, parse_labels
from implicit_atlas.io.labels import label_ids, select_mask
from implicit_atlas.io.landmarks import Landmarks, read_landmarks, write_landmarks
from implicit_atlas.io.meshes import Mesh, read_mesh, read_stored, write_mesh, write_values
from implicit_atlas.io.types import LabelMap, Mask
from implicit_atlas.io.volumes import (
    check_same_grid,
    read_grid,
    read_labels,
    read_mask,
    write_label_map,
    write_mask,
    write_volume,
)
from implicit_atlas.io.voxelise import enclosing_pieces, grid_around, voxelise

__all__ = [
    "CaseFile",
    "Cases",
    "LabelMap",
    "Landmarks",
    "Mask",
    "MaskFile",
    "MaskSource",
    "Mesh",
    "Problem",
    "case_name",
    "check_same_grid",
    "declared_labels",
    "enclosing_pieces",
    "find_cases",
    "grid_around",
    "label_ids",
    "list_cases",
    "parse_labels",
    "printable",
    "read_grid",
    "read_labels",
    "read_landmarks",
    "read_mask",
    "read_mesh",
    "read_stored",
    "select_mask",
    "voxelise",
    "write_label_map",
    "write_landmarks",
    "write_mask",
    "write_mesh",
    "write_values",
    "write_volume",
]
