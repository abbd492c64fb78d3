"""How recorded steps are kept: ours, and what else there is; each writes episodes and reads windows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from worldmodel.apps.bench import data_formats
from worldmodel.apps.bench.data_recording import Recording, Windows
from worldmodel.data import EpisodeDataset
from worldmodel.data.merging import merge_shards
from worldmodel.data.store import EpisodeStore


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A way to keep steps.

    write: all episodes into a folder that is there and empty, one after the other
    open: gives what reads windows of a horizon, until it is closed
    package: what must be installed for it
    """

    name: str
    what: str
    write: Callable[[Path, Recording], None]
    open: Callable[[Path, Recording, int], AbstractContextManager[Windows]]
    package: str | None = None


def _write_numpy(folder: Path, recording: Recording) -> None:
    for name in recording.columns(0):
        parts = [recording.columns(index)[name] for index in range(len(recording.episodes))]
        np.save(folder / f"{name}.npy", np.concatenate(parts), allow_pickle=False)


@contextmanager
def _open_numpy(folder: Path, recording: Recording, horizon: int) -> Iterator[Windows]:
    arrays = {path.stem: np.load(path, allow_pickle=False) for path in folder.glob("*.npy")}

    def windows(starts: np.ndarray) -> dict[str, np.ndarray]:
        steps = starts[:, None] + np.arange(horizon)
        # An episode has a row more of observations.
        rows = (starts + starts // recording.episode_length)[:, None] + np.arange(horizon + 1)
        return {
            name: array.take(rows if name == "observation" else steps, axis=0, mode="clip")
            for name, array in arrays.items()
        }

    yield windows


def _append(folder: Path, recording: Recording) -> None:
    dataset = EpisodeDataset(folder, mode="a")
    for episode in recording.episodes:
        dataset.append(episode)


def _write_shards(folder: Path, recording: Recording) -> None:
    store = EpisodeStore(folder, create=True)
    for episode in recording.episodes:
        store.write([episode])


def _write_merged(folder: Path, recording: Recording) -> None:
    _write_shards(folder, recording)
    merge_shards(EpisodeStore(folder), recording.max_shard_bytes)


@contextmanager
def _open_ours(folder: Path, recording: Recording, horizon: int, *, in_memory: bool) -> Iterator[Windows]:
    dataset = EpisodeDataset.open(folder, in_memory=in_memory)

    def windows(starts: np.ndarray) -> dict[str, np.ndarray]:
        batch = dataset.gather(starts, horizon)
        return {
            "observation": batch.observation[recording.kind].numpy(),
            "action": batch.action.numpy(),
            "reward": batch.reward.numpy(),
        }

    yield windows


_IN_MEMORY, _MAPPED = partial(_open_ours, in_memory=True), partial(_open_ours, in_memory=False)
# In the order of the page.
CONTENDERS = {
    "numpy": Contender(
        name="plain numpy, in memory",
        what="the reference: one array per column, written at once, loaded, `take`",
        write=_write_numpy,
        open=_open_numpy,
    ),
    "memory": Contender(
        name="worldmodel, in memory",
        what="`EpisodeDataset`, appended to on disk and in memory; read into memory",
        write=_append,
        open=_IN_MEMORY,
    ),
    "maps_merged": Contender(
        name="worldmodel, maps, merged",
        what="memory maps of few large shards; the time of merging counts as writing",
        write=_write_merged,
        open=_MAPPED,
    ),
    "maps": Contender(
        name="worldmodel, maps, shard per episode",
        what="memory maps as they are before `worldmodel data compact`",
        write=_write_shards,
        open=_MAPPED,
    ),
    "hdf5": Contender(
        name="HDF5, flat",
        what="h5py, one chunked dataset per column, uncompressed; a slice per window",
        write=data_formats.write_hdf5,
        open=data_formats.open_hdf5,
        package="h5py",
    ),
    "minari": Contender(
        name="Minari",
        what="its own API, which gives whole episodes (each loaded once per batch); HDF5, pictures lossless",
        write=data_formats.write_minari,
        open=data_formats.open_minari,
        package="minari",
    ),
    "npz": Contender(
        name="npz per episode",
        what="`numpy.savez`, uncompressed; whole episodes, each loaded once per batch",
        write=data_formats.write_npz,
        open=data_formats.open_npz,
    ),
    "lerobot": Contender(
        name="LeRobot",
        what="`LeRobotDataset` with `delta_timestamps`, an item per window; pictures as PNG, lossless",
        write=data_formats.write_lerobot,
        open=data_formats.open_lerobot,
        package="lerobot",
    ),
}
