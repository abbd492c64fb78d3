"""The world model: a function of tensors that does not know who asks."""

from worldmodel.model.acceleration import PRECISIONS, Acceleration
from worldmodel.model.imagination import estimate_return, imagine, propose
from worldmodel.model.world_model import WorldModel, WorldModelSize

__all__ = [
    "PRECISIONS",
    "Acceleration",
    "WorldModel",
    "WorldModelSize",
    "estimate_return",
    "imagine",
    "propose",
]
