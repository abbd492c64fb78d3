"""Open-loop error: the model imagines a recorded stretch from its first latent and its actions alone."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from worldmodel.analysis.latents import latents_of
from worldmodel.data import Episode
from worldmodel.model import LatentModel, WorldModel, imagine

Row = dict[str, int | float]


@dataclass(frozen=True, kw_only=True)
class OpenLoop:
    """Imagined against real over W windows of H steps.

    - `windows`: the episode of each, and its first step in it.
    - `latent`, `imagined_latent`: before each step and after the last; the first is the same in both.
    - `latent_error[k]`: the distance of the newest embedding in the latent to the one that is seen after
      k + 1 steps, relative to the distance of two random ones; 1 means that it is no better than any.
    - `reward`, `imagined_reward`: None for a model without rewards.
    """

    windows: Sequence[tuple[int, int]]
    latent: Float[Tensor, "window horizon_plus_1 latent"]
    imagined_latent: Float[Tensor, "window horizon_plus_1 latent"]
    latent_error: Float[np.ndarray, " horizon"]
    reward: Float[np.ndarray, "window horizon"] | None = None
    imagined_reward: Float[np.ndarray, "window horizon"] | None = None

    @property
    def horizon(self) -> int:
        """H, the steps that are imagined."""
        return len(self.latent_error)

    def table(self, steps: Sequence[int]) -> list[Row]:
        """Errors after k steps, for each k in `steps` up to the horizon.

        - `reward_error`: mean absolute error of the reward of step k;
        - `return_error`: that of the sum of the first k rewards;
        - `latent_error`: see the class.
        """
        rows: list[Row] = []
        for k in (k for k in steps if 1 <= k <= self.horizon):
            row: Row = {"steps": k}
            if self.reward is not None and self.imagined_reward is not None:
                errors = self.reward[:, :k] - self.imagined_reward[:, :k]
                row["reward_error"] = float(np.abs(errors[:, -1]).mean())
                row["return_error"] = float(np.abs(errors.sum(1)).mean())
            rows.append(row | {"latent_error": float(self.latent_error[k - 1])})
        return rows


@torch.inference_mode()
def open_loop(model: LatentModel, episodes: Sequence[Episode], *, horizon: int, every: int) -> OpenLoop:
    """Imagine from every `every`-th step of the episodes that has `horizon` steps after it.

    Errors: `ValueError` where no episode is that long.
    """
    windows = [
        (index, start)
        for index, episode in enumerate(episodes)
        for start in range(0, episode.num_steps - horizon + 1, every)
    ]
    if not windows:
        longest = max((episode.num_steps for episode in episodes), default=0)
        raise ValueError(
            f"no episode has {horizon} steps, the longest has {longest}: ask for a shorter horizon"
        )
    latents = [latents_of(model, episode) for episode in episodes]
    seen = torch.stack([latents[index][start : start + horizon + 1] for index, start in windows])
    actions = _stack([episodes[index].action[start : start + horizon] for index, start in windows])
    imagined = imagine(model, seen[:, 0], actions)
    embedding = model.layout.current(seen)
    distance = (model.layout.current(imagined) - embedding).norm(dim=-1).mean(0)
    rewards = {}
    if isinstance(model, WorldModel):
        real = [episodes[index].reward[start : start + horizon] for index, start in windows]
        rewards = {
            "reward": np.stack(real),
            "imagined_reward": model.reward(imagined[:, :-1], actions).numpy(),
        }
    return OpenLoop(
        windows=windows,
        latent=seen,
        imagined_latent=imagined,
        latent_error=(distance / _spread(embedding.flatten(0, 1)))[1:].numpy(),
        **rewards,
    )


def _spread(rows: Float[Tensor, "row embedding"]) -> Tensor:
    """How far apart two random rows are in the mean."""
    shuffled = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))]
    return (rows - shuffled).norm(dim=-1).mean().clamp(min=1e-9)


def _stack(arrays: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(arrays))
