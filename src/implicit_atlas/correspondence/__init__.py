"""Dense correspondence of shapes through a template that all of them deform."""

from implicit_atlas.correspondence.through_template import (
    Labelled,
    transfer_labels,
    transfer_points,
)

__all__ = ["Labelled", "transfer_labels", "transfer_points"]
