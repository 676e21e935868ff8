"""Completion of an organ from what is known of it: clicks, slices, contours, masks that were cut off."""

from implicit_atlas.completion.completion import Completion, complete
from implicit_atlas.completion.observe import Drawn, Seen, from_landmarks, from_mask, from_points

__all__ = ["Completion", "Drawn", "Seen", "complete", "from_landmarks", "from_mask", "from_points"]
