"""ImplicitAtlas: learned deformable multi-template implicit shape models of anatomy."""

__version__ = "0.1.0"
