"""Volumes and surfaces: frames and lattices, sampling, distances, meshes of fields, pieces and outlines."""
