"""The steps that are kept by everybody who is measured, made up here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from worldmodel.data import Episode

# The windows (B,) that start at these steps, counted over all episodes, with a horizon H:
# `observation` (B, H + 1, ...), `action` (B, H, A), `reward` (B, H).
Windows = Callable[[np.ndarray], dict[str, np.ndarray]]


@dataclass(frozen=True, kw_only=True)
class Recording:
    """What all of them keep: episodes of the same length, observed by `state` or by `pixels`."""

    kind: str
    episodes: Sequence[Episode]
    hdf5_chunk: int
    max_shard_bytes: int

    @property
    def episode_length(self) -> int:
        """Steps of each."""
        return self.episodes[0].num_steps

    @property
    def num_steps(self) -> int:
        """Of all episodes."""
        return self.episode_length * len(self.episodes)

    def columns(self, index: int) -> dict[str, np.ndarray]:
        """The arrays of one episode."""
        episode = self.episodes[index]
        return {
            "observation": episode.observation[self.kind],
            "action": episode.action,
            "reward": episode.reward,
        }

    @property
    def num_bytes(self) -> int:
        """Of the arrays."""
        return sum(array.nbytes for array in self.columns(0).values()) * len(self.episodes)

    def windows(self, starts: np.ndarray, horizon: int) -> dict[str, np.ndarray]:
        """What everybody must find."""
        loaded = ((index, self.columns(index)) for index in self.indices(starts))
        return self.cut(loaded, starts, horizon)

    def indices(self, starts: np.ndarray) -> list[int]:
        """The episodes that these windows belong to, each once."""
        return np.unique(starts // self.episode_length).tolist()

    def cut(
        self, loaded: Iterable[tuple[int, Mapping[str, Any]]], starts: np.ndarray, horizon: int
    ) -> dict[str, np.ndarray]:
        """Windows from whole episodes, for those who can load nothing less; each is loaded once."""
        episodes, firsts = np.divmod(starts, self.episode_length)
        found = {
            name: np.empty((len(starts), horizon + (name == "observation"), *array.shape[1:]), array.dtype)
            for name, array in self.columns(0).items()
        }
        for index, columns in loaded:
            for place in np.flatnonzero(episodes == index):
                for name, windows in found.items():
                    first = firsts[place]
                    windows[place] = columns[name][first : first + windows.shape[1]]
        return found


def made_up_recording(kind: str, sizes: Mapping[str, int], *, max_shard_bytes: int, seed: int) -> Recording:
    """Episodes of `state` (numbers at random) or of `pixels` (a picture that moves, with some noise)."""
    rng = np.random.default_rng(seed)
    num_steps = sizes["steps"]
    episodes = []
    for _ in range(sizes["episodes"]):
        if kind == "pixels":
            observation = _moving_picture(num_steps + 1, sizes["image_size"], rng)
        else:
            observation = rng.standard_normal((num_steps + 1, sizes["observation_dim"]), np.float32)
        episodes.append(
            Episode(
                observation={kind: observation},
                action=rng.uniform(-1, 1, (num_steps, sizes["action_dim"])).astype(np.float32),
                reward=rng.random(num_steps, np.float32),
                terminated=False,
                truncated=True,
            )
        )
    return Recording(
        kind=kind, episodes=episodes, hdf5_chunk=sizes["hdf5_chunk"], max_shard_bytes=max_shard_bytes
    )


def _moving_picture(num_images: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """About as hard to compress as a rendered robot: uint8 (T, 3, size, size)."""
    steps, channels = np.arange(num_images)[:, None, None, None], 40 * np.arange(3)[:, None, None]
    rows, columns = np.arange(size)[:, None], np.arange(size)
    shades = ((rows + steps) // 4 * 8 + columns // 8 * 16 + channels).astype(np.uint8)
    return shades + rng.integers(0, 4, shades.shape, np.uint8)
