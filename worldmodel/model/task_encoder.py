"""One model for several tasks: what is seen, and in which task, as one embedding."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from worldmodel.model.encoder import ObservationNormalizer, StateFeatures
from worldmodel.model.layers import mlp
from worldmodel.model.size import TaskSize


class TaskEncoder(nn.Module):
    """Encodes the padded states of several tasks, each with features and statistics of its own.

    An observation has, beside `state` (*batch, state), the number of its `task` (*batch,) int64. Its
    embedding ends with the task's code: `task_dim` numbers that are learned, and which entries of an action
    the task has (1) or not (0). So all that is made from an embedding knows the task.

    Source: TD-MPC2 (Hansen et al. 2024, arXiv 2310.16828), section 3.3.
    """

    action_masks: Tensor

    def __init__(
        self,
        tasks: Sequence[TaskSize],
        task_dim: int,
        hidden_dims: tuple[int, ...],
        latent_dim: int,
        latent_norm: nn.Module,
    ) -> None:
        super().__init__()
        self.state_dims = [task.state_dim for task in tasks]
        features = [StateFeatures(task.state_dim, task.angles) for task in tasks]
        self.features = nn.ModuleList(features)
        self.normalizers = nn.ModuleList(ObservationNormalizer(each.dim) for each in features)
        self.feature_dim = max(each.dim for each in features)
        self.codes = nn.Parameter(F.normalize(torch.randn(len(tasks), task_dim)))
        masks = torch.zeros(len(tasks), max(task.action_dim for task in tasks))
        for mask, task in zip(masks, tasks, strict=True):
            mask[: task.action_dim] = 1
        self.register_buffer("action_masks", masks, persistent=False)
        self.layers = mlp(self.feature_dim + task_dim, hidden_dims, latent_dim)
        self.latent_norm = latent_norm

    def forward(self, observation: dict[str, Tensor]) -> Float[Tensor, "*batch embedding"]:
        """Encode `state` (*batch, state) of `task` (*batch,)."""
        task = observation["task"]
        features, code = self._normalized(observation["state"], task), self.code(task)
        embedding = self.latent_norm(self.layers(torch.cat([features, code], dim=-1)))
        return torch.cat([embedding, code, self.action_masks[task]], dim=-1)

    def code(self, task: Int64[Tensor, "*batch"]) -> Float[Tensor, "*batch code"]:
        """What is learned of tasks, no longer than 1: it cannot outgrow what is observed."""
        codes = self.codes / self.codes.norm(dim=-1, keepdim=True).clamp(min=1)
        return codes[task]

    def update_statistics(self, observation: dict[str, Tensor]) -> None:
        """Take the states (step, state) of further observations of one `task` () into its normaliser."""
        index = int(observation["task"])
        state = observation["state"][..., : self.state_dims[index]]
        normalizer = self.normalizers[index]
        assert isinstance(normalizer, ObservationNormalizer)
        normalizer.update(self.features[index](state))

    def share_statistics(self, other: "TaskEncoder") -> None:
        """Normalise as another encoder does, now and later."""
        self.normalizers = other.normalizers

    def _normalized(self, state: Tensor, task: Tensor) -> Tensor:
        """The features of each state as its own task sees them, padded with zeros."""
        found = state.new_zeros(*state.shape[:-1], self.feature_dim)
        for index, (features, normalizer) in enumerate(zip(self.features, self.normalizers, strict=True)):
            seen = normalizer(features(state[..., : self.state_dims[index]]))
            seen = F.pad(seen, (0, self.feature_dim - seen.shape[-1]))
            found = torch.where((task == index)[..., None], seen, found)
        return found
