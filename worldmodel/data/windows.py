"""Windows: consecutive steps of one episode, stacked into the batches that a model learns from.

Every step of every episode is the start of one window. A window never reaches into another episode: past the
end of its own it is padded, with `valid` False. So the last transition of an episode is learned from as often
as any other, and so are episodes that are shorter than the window.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from worldmodel.data.arena import EpisodeArena
from worldmodel.data.mapped_arena import MappedArena
from worldmodel.errors import DatasetError


@dataclass(frozen=True, kw_only=True)
class Batch:
    """B windows of H steps, with H + 1 observations each.

    observation: `state` (B, H + 1, O) float32, `pixels` (B, H + 1, C, H, W) uint8, or both
    terminated: True only at the last step of an episode that terminated
    valid: False at padding, where the last observation is repeated and all else is 0 or False; True at
        every window's first step, and never again after the first False
    extra: further columns, (B, H, ...) each
    """

    observation: dict[str, Tensor]
    action: Float[Tensor, "batch horizon action"]
    reward: Float[Tensor, "batch horizon"]
    terminated: Bool[Tensor, "batch horizon"]
    valid: Bool[Tensor, "batch horizon"]
    extra: dict[str, Tensor]

    @property
    def batch_size(self) -> int:
        """B, the number of windows."""
        return self.action.shape[0]

    @property
    def horizon(self) -> int:
        """H, the steps of each window, padding included."""
        return self.action.shape[1]

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        return Batch(
            observation={name: tensor.to(device) for name, tensor in self.observation.items()},
            action=self.action.to(device),
            reward=self.reward.to(device),
            terminated=self.terminated.to(device),
            valid=self.valid.to(device),
            extra={name: tensor.to(device) for name, tensor in self.extra.items()},
        )


def draw_starts(
    arena: EpisodeArena | MappedArena | None,
    batch_size: int,
    num_episodes: int,
    generator: np.random.Generator,
) -> Int64[np.ndarray, " batch"]:
    """Random steps, each as likely as any other; with `num_episodes`, all of so many random episodes.

    Of those, longer ones are as much likelier as they are longer, and one may be drawn twice.
    """
    if arena is None or arena.num_steps == 0:
        raise DatasetError("there is nothing to sample: append an episode first")
    if batch_size < 1:
        raise DatasetError(f"batch_size is {batch_size}; a batch has at least 1 window")
    if not num_episodes:
        return generator.integers(arena.num_steps, size=batch_size)
    first, end = arena.bounds_of(generator.integers(arena.num_steps, size=num_episodes))
    chosen = generator.integers(num_episodes, size=batch_size)
    return generator.integers(first[chosen], end[chosen])


def gather_windows(
    arena: EpisodeArena | MappedArena | None, steps: Int64[np.ndarray, " batch"], horizon: int
) -> Batch:
    """The windows that start at these steps, counted from 0 over all episodes; in memory of their own."""
    if horizon < 1:
        raise DatasetError(f"horizon is {horizon}; a window has at least 1 step")
    num_steps = 0 if arena is None else arena.num_steps
    if arena is None or len(steps) == 0 or steps.min() < 0 or steps.max() >= num_steps:
        raise DatasetError(f"window starts are at least one step number from 0 up to {num_steps} (exclusive)")
    rows, valid = arena.rows_of(steps, horizon)
    step_rows = rows[:, :-1]

    def group(prefix: str, rows: np.ndarray) -> dict[str, Tensor]:
        return {
            name.removeprefix(prefix): torch.from_numpy(arena.take(name, rows))
            for name in arena.columns
            if name.startswith(prefix)
        }

    return Batch(
        observation=group("observation.", rows),
        action=torch.from_numpy(arena.take("action", step_rows)),
        reward=torch.from_numpy(arena.take("reward", step_rows)),
        terminated=torch.from_numpy(arena.take_terminated(step_rows)),
        valid=torch.from_numpy(valid),
        extra=group("extra.", step_rows),
    )


def returns_of(arena: EpisodeArena | MappedArena) -> list[float]:
    """The undiscounted return of each episode, as `Episode.total_reward`; only rewards are read."""
    rows = arena.rows_of(np.arange(arena.num_steps), 1)[0][:, :1]
    rewards = arena.take("reward", rows)[:, 0]
    starts = np.flatnonzero(np.diff(rows[:, 0]) > 1) + 1  # an episode has a row more than steps
    return [float(part.sum(dtype=np.float64)) for part in np.split(rewards, starts)]
