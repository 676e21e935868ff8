"""The atlas itself: decoders, templates, deformation, losses, the methods composed of them, and its folder on disk."""
