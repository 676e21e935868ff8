"""Foreign methods at their authors' settings, written from their published descriptions."""
