"""Learning to reach goals without search, from the rollouts that a model learned from.

Whatever was recorded has come where it came: each later observation of an episode is a goal to which its
actions led (hindsight: Andrychowicz et al. 2017, arXiv 1707.01495).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor, nn

from worldmodel.data import EpisodeDataset
from worldmodel.errors import ConfigError
from worldmodel.model import GoalPolicy, LatentModel
from worldmodel.training.kinds import fresh_like

Progress = Callable[[int], None]  # told how many updates are done

_RATE, _WEIGHT_DECAY, _MAX_GRAD_NORM = 1e-3, 1e-3, 1.0
_CLONING_BATCH, _INVERSE_BATCH = 128, 512


def clone_behaviour(
    model: LatentModel, dataset: EpisodeDataset, *, num_updates: int, seed: int, progress: Progress
) -> GoalPolicy:
    """Goal-conditioned behaviour cloning: learned end to end, towards goals anywhere later in an episode.

    It knows nothing of `model` but its size: encoder and head are trained from nothing to do what was done,
    by squared error. Source: Ghosh et al. 2019, "Learning to Reach Goals via Iterated Supervised Learning",
    arXiv 1912.06088 (its first iteration).

    - `model`: whose architecture it takes; left as it is.
    - `seed`: with the same dataset, the same weights (on the CPU).

    Errors: `ConfigError` for a dataset whose episodes are shorter than the model's history.
    """
    policy = _new_policy(fresh_like(model, seed), seed)
    pairs, device = Hindsight.of(dataset, model.size.history), _device(model)
    chance, history = np.random.default_rng(seed), model.size.history

    def loss() -> Tensor:
        now, later = pairs.draw(_CLONING_BATCH, chance)
        before = dataset.gather(now - (history - 1), history).to(device)
        reached = dataset.gather(later, 1).to(device)
        embeddings = policy.model.embed({k: v[:, :history] for k, v in before.observation.items()})
        goal = policy.model.embed({key: value[:, 1] for key, value in reached.observation.items()})
        latent = policy.model.layout.over(embeddings, before.action[:, : history - 1])[:, 0]
        return (policy(latent, goal) - before.action[:, -1]).square().mean()

    _fit(policy, list(policy.parameters()), loss, num_updates, progress)
    return policy


def learn_inverse_dynamics(
    model: LatentModel,
    dataset: EpisodeDataset,
    *,
    horizon: int,
    num_updates: int,
    seed: int,
    progress: Progress,
) -> GoalPolicy:
    """Goal-conditioned inverse dynamics: the first action between a latent and an embedding soon after.

    The model is frozen: only the head learns, from embeddings that are made once, with goals 1 to `horizon`
    steps later, by squared error. Where behaviour cloning shows what rollouts alone teach, this shows what
    search adds to the same latent. Source: arXiv 2605.08732.

    - `horizon`: as far as the planner looks that it stands beside.
    - `seed`: with the same dataset, the same weights (on the CPU).
    """
    policy = _new_policy(model, seed)
    pairs, device = Hindsight.of(dataset, 1), _device(model)
    latents, reached, actions = _embedded(model, dataset)
    chance = np.random.default_rng(seed)

    def loss() -> Tensor:
        now, later = (torch.from_numpy(each) for each in pairs.draw(_INVERSE_BATCH, chance, horizon))
        guessed = policy(latents[now].to(device), reached[later].to(device))
        return (guessed - actions[now].to(device)).square().mean()

    _fit(policy, list(policy.head.parameters()), loss, num_updates, progress)
    return policy


@dataclass(frozen=True)
class Hindsight:
    """Pairs of a step and a later one of its episode, by their numbers over all episodes.

    - `steps`: that may come first.
    - `last`: the last step of the episode of each.
    """

    steps: Int64[np.ndarray, " step"]
    last: Int64[np.ndarray, " step"]

    @classmethod
    def of(cls, dataset: EpisodeDataset, history: int) -> "Hindsight":
        """Steps before which there are `history` - 1 others. Errors: `ConfigError` where there is none."""
        lengths = np.array([episode.num_steps for episode in dataset])
        starts = np.cumsum(lengths) - lengths
        first, last = np.repeat(starts, lengths), np.repeat(starts + lengths - 1, lengths)
        steps = np.arange(lengths.sum())
        usable = steps - first >= history - 1
        if not usable.any():
            raise ConfigError(f"no episode of the dataset has the {history} steps that a latent holds")
        return cls(steps[usable], last[usable])

    def draw(
        self, count: int, chance: np.random.Generator, horizon: int | None = None
    ) -> tuple[Int64[np.ndarray, " pair"], Int64[np.ndarray, " pair"]]:
        """Steps, and steps whose end is the goal: the same or a later one, fewer than `horizon` away."""
        chosen = chance.integers(len(self.steps), size=count)
        now, last = self.steps[chosen], self.last[chosen]
        if horizon is not None:
            last = np.minimum(last, now + horizon - 1)
        return now, chance.integers(now, last + 1)


@torch.no_grad()
def _embedded(model: LatentModel, dataset: EpisodeDataset) -> tuple[Tensor, Tensor, Tensor]:
    """Of every step: the latent before it, the embedding after it, and its action."""
    latents, reached, actions = [], [], []
    device = _device(model)
    for episode in dataset:
        seen = {key: torch.from_numpy(np.array(episode.observation[key])) for key in model.size.observes}
        action = torch.from_numpy(np.array(episode.action)).to(device)
        along = model.encode_along(seen, action)
        latents.append(along[:-1])
        reached.append(model.layout.current(along[1:]))
        actions.append(action)
    return torch.cat(latents), torch.cat(reached), torch.cat(actions)


def _new_policy(model: LatentModel, seed: int) -> GoalPolicy:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return GoalPolicy(model).to(_device(model))


def _fit(
    policy: GoalPolicy,
    parameters: list[nn.Parameter],
    loss: Callable[[], Tensor],
    num_updates: int,
    progress: Progress,
) -> None:
    optimizer = torch.optim.AdamW(parameters, lr=_RATE, weight_decay=_WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_updates)
    for update in range(num_updates):
        optimizer.zero_grad(set_to_none=True)
        loss().backward()
        nn.utils.clip_grad_norm_(parameters, _MAX_GRAD_NORM)
        optimizer.step()
        schedule.step()
        progress(update + 1)


def _device(model: LatentModel) -> torch.device:
    return next(model.parameters()).device
