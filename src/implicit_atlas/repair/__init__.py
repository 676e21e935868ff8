"""Repair of annotations by the most probable shape."""

from implicit_atlas.repair.annotations import Repair, repair

__all__ = ["Repair", "repair"]
