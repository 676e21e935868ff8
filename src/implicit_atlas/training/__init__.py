"""Training: shapes in, a network and one code a shape out."""

from implicit_atlas.training.config import TrainConfig, default_config
from implicit_atlas.training.data import TrainingData, gather
from implicit_atlas.training.loop import Progress, Trained, optimise

__all__ = ["Progress", "TrainConfig", "Trained", "TrainingData", "default_config", "gather", "optimise"]
