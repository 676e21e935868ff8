"""Training: shapes in, a network and one code a shape out."""

from implicit_atlas.training.config import TrainConfig, default_config
from implicit_atlas.training.data import TrainingData, gather
from implicit_atlas.training.loop import Progress, Trained, optimise
from implicit_atlas.training.state import content_hash, identity, own_state

__all__ = [
    "Progress",
    "TrainConfig",
    "Trained",
    "TrainingData",
    "content_hash",
    "default_config",
    "gather",
    "identity",
    "optimise",
    "own_state",
]
