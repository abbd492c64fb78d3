"""Recording rollouts into a dataset, in one process or several; what is there already is not played again."""

import multiprocessing
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from envs.rendering import FAST
from worldmodel.apps import provenance
from worldmodel.apps.collection import Collection
from worldmodel.apps.config import not_negative, positive
from worldmodel.apps.progress import ProgressDisplay
from worldmodel.apps.statistics import Mean, mean_interval
from worldmodel.data.store import EpisodeStore
from worldmodel.errors import ConfigError


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
        missing = _missing(store, collection)
        if not missing:
            return None
        returns: list[float] = []
        done = config["episodes"] - sum(map(len, missing.values()))
        title = f"collect {collection.task}"
        with ProgressDisplay(title, config["episodes"], "episodes", done=done) as display:
            for episode_return, num_steps in _played(collection, missing):
                returns.append(episode_return)
                display.add("steps", num_steps)
                display.update(done + len(returns), {"return": f"{episode_return:.0f}"})
    finally:
        collection.close()
    return mean_interval(returns)


def _check(collection: Collection) -> None:
    """Tell a mistake before there is a folder."""
    config, run = collection.config, collection.run
    repeat, trained_repeat = (c["env"]["action_repeat"] for c in (config, run.config if run else config))
    if repeat != trained_repeat:
        raise ConfigError(
            f"env.action_repeat={repeat}, but {config['checkpoint']} was trained with {trained_repeat}: "
            f"give env.action_repeat={trained_repeat}"
        )
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


def _missing(store: EpisodeStore, collection: Collection) -> dict[int, set[int]]:
    """Episodes that are not recorded yet, by group."""
    there = {
        fact["info"].get("number")
        for name in store.shard_names()
        for fact in store.facts(name)
        if fact["info"].get("collection") == collection.identity
    }
    missing: dict[int, set[int]] = {}
    for number in range(collection.config["episodes"]):
        if number not in there:
            missing.setdefault(number // collection.config["num_envs"], set()).add(number)
    return missing


def _played(collection: Collection, missing: dict[int, set[int]]) -> Iterator[tuple[float, int]]:
    """Return and steps of each episode, once it is recorded."""
    num_workers = min(collection.config["num_workers"], len(missing))
    if num_workers == 1:
        for group, numbers in missing.items():
            yield from _recorded(collection, group, numbers)
        return
    context = multiprocessing.get_context("spawn")  # forks would share OpenGL's and torch's threads
    with ProcessPoolExecutor(
        num_workers, mp_context=context, initializer=_begin_work, initargs=(collection.config,)
    ) as pool:
        futures = [pool.submit(_work, group, numbers) for group, numbers in missing.items()]
        try:
            for future in as_completed(futures):
                yield from future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():  # what is recorded is safe; the rest can go
                process.terminate()
            raise


_worker: Collection | None = None


def _begin_work(config: dict[str, Any]) -> None:
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's Ctrl-C comes to all; the parent ends us
    _worker = Collection(config=config)


def _work(group: int, numbers: set[int]) -> list[tuple[float, int]]:
    assert _worker is not None
    return list(_recorded(_worker, group, numbers))


def _recorded(collection: Collection, group: int, numbers: set[int]) -> Iterator[tuple[float, int]]:
    """Play a group's episodes; return and steps of each, once it is on the disk."""
    config = collection.config
    store = EpisodeStore(Path(config["dataset"]), create=True)
    for episodes in collection.play(group, numbers):
        # In one shard: to sync is most of the work.
        store.write(episodes, compresses_pixels=config["compress_pixels"])
        yield from ((episode.total_reward, episode.num_steps) for episode in episodes)
