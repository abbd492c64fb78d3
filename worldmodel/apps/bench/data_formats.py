"""How others keep steps: HDF5, npz, Minari, LeRobot. Each writes episodes and reads windows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from worldmodel.apps.bench.data_recording import Recording, Windows

_FPS = 50  # LeRobot finds steps by their time


def write_hdf5(folder: Path, recording: Recording) -> None:
    """One file: a dataset per column, which grows."""
    import h5py

    with h5py.File(folder / "steps.h5", "w") as file:
        for name, array in recording.columns(0).items():
            shape = array.shape[1:]
            file.create_dataset(
                name,
                (0, *shape),
                array.dtype,
                maxshape=(None, *shape),
                chunks=(recording.hdf5_chunk, *shape),
            )
        for index in range(len(recording.episodes)):
            for name, array in recording.columns(index).items():
                column = file[name]
                column.resize(len(column) + len(array), axis=0)
                column[-len(array) :] = array


@contextmanager
def open_hdf5(folder: Path, recording: Recording, horizon: int) -> Iterator[Windows]:
    """A slice per window."""
    import h5py

    with h5py.File(folder / "steps.h5", "r") as file:
        observation, action, reward = (file[name] for name in ("observation", "action", "reward"))

        def windows(starts: np.ndarray) -> dict[str, np.ndarray]:
            rows = starts + starts // recording.episode_length
            return {
                "observation": np.stack([observation[row : row + horizon + 1] for row in rows]),
                "action": np.stack([action[step : step + horizon] for step in starts]),
                "reward": np.stack([reward[step : step + horizon] for step in starts]),
            }

        yield windows


def write_npz(folder: Path, recording: Recording) -> None:
    """A file per episode."""
    for index in range(len(recording.episodes)):
        columns: dict[str, Any] = recording.columns(index)
        np.savez(folder / f"{index}.npz", **columns)


@contextmanager
def open_npz(folder: Path, recording: Recording, horizon: int) -> Iterator[Windows]:
    """Whole episodes."""

    def load(index: int) -> dict[str, np.ndarray]:
        with np.load(folder / f"{index}.npz", allow_pickle=False) as file:
            return dict(file)

    yield lambda starts: recording.cut(
        ((index, load(index)) for index in recording.indices(starts)), starts, horizon
    )


def write_minari(folder: Path, recording: Recording) -> None:
    """Episode after episode, by its own storage."""
    import minari
    from gymnasium.spaces import Box
    from minari.data_collector import EpisodeBuffer
    from minari.dataset.minari_storage import MinariStorage

    first = recording.columns(0)
    low, high, dtype = (0, 255, np.uint8) if recording.kind == "pixels" else (-np.inf, np.inf, np.float32)
    storage = MinariStorage.new(
        folder.resolve(),  # it takes no relative path
        observation_space=Box(low, high, first["observation"].shape[1:], dtype),  # type: ignore[arg-type]
        action_space=Box(-1.0, 1.0, first["action"].shape[1:], np.float32),
        jpeg_encoding=False,  # its default loses what the pictures were
    )
    storage.update_metadata({"dataset_id": "bench/steps-v0", "minari_version": minari.__version__})
    for index, episode in enumerate(recording.episodes):
        columns = recording.columns(index)
        is_last = np.arange(episode.num_steps) == episode.num_steps - 1
        storage.update_episodes(
            [
                EpisodeBuffer(
                    id=index,
                    observations=columns["observation"],  # type: ignore[arg-type]
                    actions=columns["action"],  # type: ignore[arg-type]
                    rewards=columns["reward"],  # type: ignore[arg-type]
                    terminations=is_last & episode.terminated,  # type: ignore[arg-type]
                    truncations=is_last & episode.truncated,  # type: ignore[arg-type]
                )
            ]
        )


@contextmanager
def open_minari(folder: Path, recording: Recording, horizon: int) -> Iterator[Windows]:
    """Whole episodes, as its API gives them."""
    from minari import MinariDataset

    dataset = MinariDataset(folder.resolve())

    def windows(starts: np.ndarray) -> dict[str, np.ndarray]:
        loaded = (
            (
                episode.id,
                {"observation": episode.observations, "action": episode.actions, "reward": episode.rewards},
            )
            for episode in dataset.iterate_episodes(recording.indices(starts))
        )
        return recording.cut(loaded, starts, horizon)

    yield windows


def write_lerobot(folder: Path, recording: Recording) -> None:
    """Frame after frame, by its own API."""
    import datasets
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    datasets.disable_progress_bars()
    first = recording.columns(0)
    is_pixels = recording.kind == "pixels"
    shapes = {"observation.state": first["observation"].shape[1:], "action": first["action"].shape[1:]}
    features: dict[str, dict[str, Any]] = {
        name: {"dtype": "float32", "shape": shape, "names": None}
        for name, shape in (shapes | {"reward": (1,)}).items()
    }
    if is_pixels:
        image = features.pop("observation.state") | {
            "dtype": "image",
            "names": ["channel", "height", "width"],
        }
        features["observation.image"] = image
    dataset = LeRobotDataset.create(
        "bench/steps", fps=_FPS, features=features, root=folder / "steps", use_videos=False
    )
    key = "observation.image" if is_pixels else "observation.state"
    for index in range(len(recording.episodes)):
        observation, action, reward = recording.columns(index).values()
        # It has as many observations as actions, so the last one needs an action that nobody took.
        action = np.concatenate([action, np.zeros_like(action[:1])])
        reward = np.append(reward, np.float32(0))
        for step in range(len(observation)):
            frame = {key: observation[step], "action": action[step], "reward": reward[step : step + 1]}
            dataset.add_frame(frame | {"task": "bench"})
        dataset.save_episode()
    dataset.finalize()


@contextmanager
def open_lerobot(folder: Path, recording: Recording, horizon: int) -> Iterator[Windows]:
    """An item per window."""
    import torch
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    is_pixels = recording.kind == "pixels"
    key = "observation.image" if is_pixels else "observation.state"
    times = [step / _FPS for step in range(horizon + 1)]
    wanted = {key: times, "action": times[:-1], "reward": times[:-1]}
    dataset = LeRobotDataset("bench/steps", root=folder / "steps", delta_timestamps=wanted)

    def windows(starts: np.ndarray) -> dict[str, np.ndarray]:
        rows = (starts + starts // recording.episode_length).tolist()
        items = [dataset[row] for row in rows]
        observation = torch.stack([item[key] for item in items])
        if is_pixels:  # it gives floats from 0 to 1
            observation = (observation * 255).round().to(torch.uint8)
        return {
            "observation": observation.numpy(),
            "action": torch.stack([item["action"] for item in items]).numpy(),
            "reward": torch.stack([item["reward"] for item in items]).reshape(len(starts), horizon).numpy(),
        }

    yield windows
