"""Open-loop error: the model imagines a recorded stretch from its first observation and its actions alone."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from worldmodel.analysis.readout import Readout
from worldmodel.data import Episode
from worldmodel.model import WorldModel, imagine
from worldmodel.model.encoder import StateEncoder


@dataclass(frozen=True, kw_only=True)
class OpenLoop:
    """Imagined against real over W windows of H steps; O counts the features that the encoder sees.

    `latent_error[k]` is the distance to the embedding after k + 1 steps, relative to the distance of two
    random embeddings; 1 means that the imagined one is no better than any.
    """

    reward: Float[np.ndarray, "window horizon"]
    imagined_reward: Float[np.ndarray, "window horizon"]
    observation: Float[np.ndarray, "window horizon observation"]
    imagined_observation: Float[np.ndarray, "window horizon observation"]
    first_observation: Float[np.ndarray, "window observation"]
    latent_error: Float[np.ndarray, " horizon"]

    def table(self, steps: Sequence[int]) -> list[dict[str, int | float]]:
        """Errors after k steps, for each k in `steps` up to the horizon.

        - `reward_error`: mean absolute error of the reward of step k;
        - `return_error`: that of the sum of the first k rewards;
        - `observation_error`: RMSE of the read-out, in standard deviations of each dimension;
        - `no_motion_error`: the same for "nothing moves", which a model has to beat;
        - `latent_error`: see the class.
        """
        scale = self.observation.std((0, 1))
        # In a dimension that never moves, rounding would count as an error of many stds.
        scale = np.where(scale > 1e-6, scale, 1.0)
        rows: list[dict[str, int | float]] = []
        for k in (k for k in steps if 1 <= k <= self.reward.shape[1]):
            real, imagined = self.observation[:, k - 1], self.imagined_observation[:, k - 1]
            returns = self.reward[:, :k].sum(1), self.imagined_reward[:, :k].sum(1)
            rows.append(
                {
                    "steps": k,
                    "reward_error": float(np.abs(self.reward - self.imagined_reward)[:, k - 1].mean()),
                    "return_error": float(np.abs(returns[0] - returns[1]).mean()),
                    "observation_error": _rmse((real - imagined) / scale),
                    "no_motion_error": _rmse((real - self.first_observation) / scale),
                    "latent_error": float(self.latent_error[k - 1]),
                }
            )
        return rows


@torch.inference_mode()
def open_loop(
    model: WorldModel, readout: Readout, episodes: Sequence[Episode], *, horizon: int, every: int
) -> OpenLoop:
    """Imagine from every `every`-th step of the episodes that has `horizon` steps after it.

    Errors: `ValueError` where no episode is that long.
    """
    starts = [
        (episode, start) for episode in episodes for start in range(0, episode.num_steps - horizon + 1, every)
    ]
    if not starts:
        longest = max((episode.num_steps for episode in episodes), default=0)
        raise ValueError(
            f"no episode has {horizon} steps, the longest has {longest}: ask for a shorter horizon"
        )
    states = _stack([episode.observation["state"][s : s + horizon + 1] for episode, s in starts])
    actions = _stack([episode.action[s : s + horizon] for episode, s in starts])
    rewards = _stack([episode.reward[s : s + horizon] for episode, s in starts])
    embeddings = model.embed({"state": states})
    assert isinstance(model.encoder, StateEncoder)
    states = model.encoder.features(states)
    latents = imagine(model, model.layout.start(embeddings[:, 0]), actions)
    imagined = model.layout.current(latents)
    rows = embeddings.flatten(0, 1)
    shuffled = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))]
    spread = (rows - shuffled).norm(dim=-1).mean().clamp(min=1e-9)
    return OpenLoop(
        reward=rewards.numpy(),
        imagined_reward=model.reward(latents[:, :-1], actions).numpy(),
        observation=states[:, 1:].numpy(),
        imagined_observation=readout(imagined[:, 1:]).numpy(),
        first_observation=states[:, 0].numpy(),
        latent_error=((imagined - embeddings).norm(dim=-1).mean(0) / spread)[1:].numpy(),
    )


def _stack(arrays: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(arrays))


def _rmse(errors: np.ndarray) -> float:
    return float(np.sqrt(np.square(errors).mean()))
