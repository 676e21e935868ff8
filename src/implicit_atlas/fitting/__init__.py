"""An atlas is fitted to what was observed: whole masks (`dense`), or clicks, slices and parts (`sparse`)."""
