"""The world model: a function of tensors that does not know who asks."""

from worldmodel.model.acceleration import PRECISIONS, Acceleration, Recorded
from worldmodel.model.decoder import ImageDecoder
from worldmodel.model.goal_policy import GoalPolicy
from worldmodel.model.imagination import estimate_return, goal_distance, imagine, propose
from worldmodel.model.latent_model import LatentModel
from worldmodel.model.pixels import scaled
from worldmodel.model.single_task import single_task
from worldmodel.model.size import MAX_IMAGE_SIZE, TaskSize, WorldModelSize
from worldmodel.model.world_model import WorldModel

__all__ = [
    "MAX_IMAGE_SIZE",
    "PRECISIONS",
    "Acceleration",
    "GoalPolicy",
    "ImageDecoder",
    "LatentModel",
    "Recorded",
    "TaskSize",
    "WorldModel",
    "WorldModelSize",
    "estimate_return",
    "goal_distance",
    "imagine",
    "propose",
    "scaled",
    "single_task",
]
