"""Recording rollouts into a dataset, in one process or several; what is there already is not played again."""

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

import envs
from envs.rendering import FAST
from worldmodel.apps import provenance
from worldmodel.apps.collection import Collection
from worldmodel.apps.config import not_negative, positive
from worldmodel.apps.progress import ProgressDisplay, console
from worldmodel.apps.statistics import Mean, mean_interval
from worldmodel.data.store import EpisodeStore
from worldmodel.errors import ConfigError, RunError


def collect(config: dict[str, Any]) -> Mean | None:
    """Record until the dataset holds `episodes` of this collection; returns the mean return of the new ones.

    None if there was nothing left to do. `config` is that of `configs/collect.yaml`. Each episode is safe on
    the disk when it ends; the same command goes on where it was cut off, and ends with the same episodes.
    """
    positive(config, "episodes", "num_envs", "num_workers")
    not_negative(config, "seed")
    collection = Collection(config=config)
    try:
        _check(collection)
        store = EpisodeStore(Path(config["dataset"]), create=True, info=_info(collection))
        with _alone(collection):
            there = _recorded_numbers(store, collection)
            if len(there) == config["episodes"]:
                return None
            returns: list[float] = []
            num_diverged = 0
            title = f"collect {collection.task}"
            with ProgressDisplay(title, config["episodes"], "episodes", done=len(there)) as display:
                for group in _played(collection, store, there):
                    num_diverged += group.num_diverged
                    for episode_return, num_steps in group.episodes:
                        returns.append(episode_return)
                        display.add("steps", num_steps)
                        numbers = {"return": f"{episode_return:.0f}"}
                        display.update(len(there) + len(returns), numbers)
    finally:
        collection.close()
    if num_diverged:
        console.print(f"{num_diverged} episodes are left out: their simulation diverged", style="yellow")
    if not returns:
        raise RunError(
            f"all {num_diverged} episodes that were played diverged: give another policy= or task="
        )
    return mean_interval(returns)


@contextmanager
def _alone(collection: Collection) -> Iterator[None]:
    """Two that record the same collection at once would record episodes twice. Errors: `RunError`."""
    path = Path(collection.config["dataset"]) / f".collect-{collection.identity}.lock"
    try:
        with FileLock(path).acquire(timeout=0):
            yield
    except Timeout as error:
        raise RunError(
            f"another process records this collection into {path.parent}: wait for it, or give another seed="
        ) from error


def _check(collection: Collection) -> None:
    """Tell a mistake before there is a folder."""
    config, run = collection.config, collection.run
    repeat, trained_repeat = (c["env"]["action_repeat"] for c in (config, run.config if run else config))
    if repeat != trained_repeat:
        raise ConfigError(
            f"env.action_repeat={repeat}, but {config['checkpoint']} was trained with {trained_repeat}: "
            f"give env.action_repeat={trained_repeat}"
        )
    if collection.env.episode_length is None and not collection.env.can_terminate:
        raise ConfigError(f"task={collection.task} never ends an episode: give its environment a time limit")
    for policy in collection.shares:
        collection.agent_of(policy, group=0)
    if config["physics_state"]:
        collection.env.reset()
        collection.env.physics_states()


def _info(collection: Collection) -> dict[str, Any]:
    """What the recorded data depend on besides the policy: a dataset keeps to one of each scalar."""
    config, env = collection.config, collection.env
    spaces = {"observation": str(env.single_observation_space), "action": str(env.single_action_space)}
    images = {"camera": config["camera"], "image_quality": asdict(FAST)}
    return {
        "task": env.task,
        "action_repeat": env.action_repeat,
        "control_period_s": env.control_period_s,
        **(images if "pixels" in config["env"]["observe"] else {}),
        "spaces": spaces,
        "made_with": {
            "commit": provenance.commit(),
            "packages": {name: version(name) for name in provenance.PACKAGES},
        },
    }


@dataclass(frozen=True)
class Recorded:
    """What came of (a part of) a group: return and steps of each episode that is on the disk now."""

    episodes: list[tuple[float, int]]
    num_diverged: int = 0


def _recorded_numbers(store: EpisodeStore, collection: Collection) -> set[int]:
    """Which of the episodes wanted are recorded already."""
    numbers = {
        info.get("number") for info in store.episode_infos() if info.get("collection") == collection.identity
    }
    return {number for number in numbers if type(number) is int and number < collection.config["episodes"]}


def _groups(collection: Collection, there: set[int]) -> Iterator[tuple[int, set[int]]]:
    """Groups with episodes that are not `there`, and which these are."""
    num_episodes, num_envs = collection.config["episodes"], collection.config["num_envs"]
    for first in range(0, num_episodes, num_envs):
        if wanted := set(range(first, min(first + num_envs, num_episodes))) - there:
            yield first // num_envs, wanted


def _played(collection: Collection, store: EpisodeStore, there: set[int]) -> Iterator[Recorded]:
    """What is recorded, as it is."""
    num_workers, groups = collection.config["num_workers"], _groups(collection, there)
    if num_workers == 1:
        for group, numbers in groups:
            yield from _recorded(collection, store, group, numbers)
        return
    context = multiprocessing.get_context("spawn")  # forks would share OpenGL's and torch's threads
    with ProcessPoolExecutor(
        num_workers, mp_context=context, initializer=_begin_work, initargs=(collection.config,)
    ) as pool:
        try:
            # A few ahead: there may be millions.
            running = {pool.submit(_work, *work) for work in islice(groups, 2 * num_workers)}
            while running:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                running |= {pool.submit(_work, *work) for work in islice(groups, len(done))}
                for future in done:
                    yield from future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():  # what is recorded is safe; the rest can go
                process.terminate()
            raise


_worker: tuple[Collection, EpisodeStore] | None = None


def _begin_work(config: dict[str, Any]) -> None:
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's Ctrl-C comes to all; the parent ends us
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(max(1, provenance.num_cores() // config["num_workers"]))
    _worker = Collection(config=config), EpisodeStore(Path(config["dataset"]), create=True)


def _end_with_parent() -> None:
    """Where the parent is killed, nobody would end us; and who starts it again would record twice."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)


def _work(group: int, numbers: set[int]) -> list[Recorded]:
    assert _worker is not None
    return list(_recorded(*_worker, group, numbers))


def _recorded(
    collection: Collection, store: EpisodeStore, group: int, numbers: set[int]
) -> Iterator[Recorded]:
    """Play a group's episodes; what came of them, once it is on the disk."""
    num_left = len(numbers)
    try:
        for episodes in collection.play(group, numbers):
            # In one shard: to sync is most of the work.
            store.write(episodes, compresses_pixels=collection.config["compress_pixels"])
            num_left -= len(episodes)
            yield Recorded([(episode.total_reward, episode.num_steps) for episode in episodes])
    except envs.SimulationError:  # of one of them; where the others are is not known any more
        yield Recorded([], num_diverged=num_left)
