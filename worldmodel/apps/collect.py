"""Recording rollouts into a dataset, in one process or several; what is there already is not played again."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, wait
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from envs.rendering import FAST
from worldmodel.apps import provenance
from worldmodel.apps.collect_into import check_columns, check_folder
from worldmodel.apps.collection import Collection, Played
from worldmodel.apps.config import not_negative, positive
from worldmodel.apps.launcher import Launch
from worldmodel.apps.progress import ProgressDisplay, counted
from worldmodel.apps.statistics import Mean, mean_interval
from worldmodel.data.shard import write_failure
from worldmodel.data.store import EpisodeStore
from worldmodel.errors import ConfigError, RunError
from worldmodel.files import write_json


@dataclass(frozen=True)
class Collected:
    """What `collect` has done: the mean return of the new episodes, if any, and how many will never be.

    num_before: episodes of this collection that were there already.
    """

    new: Mean | None
    num_left_out: int
    num_before: int


def collect(config: dict[str, Any]) -> Collected:
    """Record until the dataset holds `episodes` of this collection, without those that diverge.

    `config` is that of `configs/collect.yaml`. Each episode is safe on the disk when it ends; the same
    command goes on where it was cut off, and ends with the same episodes.
    """
    positive(config, "episodes", "num_envs", "num_workers")
    not_negative(config, "seed", "max_steps")
    launch = Launch.of(config)
    collection = Collection(config=config)
    try:
        _check(collection)
        store = EpisodeStore(Path(config["dataset"]), create=True, info=_info(collection))
        with _alone(collection):
            there = _recorded_numbers(store, collection)
            diverged = _Diverged(collection)
            try:
                returns = _record(collection, store, launch, there, diverged)
            except KeyboardInterrupt:
                num_safe = len(_recorded_numbers(store, collection))
                print(
                    f"\nstopped: {num_safe} of {counted(config['episodes'], 'episode')} are safe in "
                    f"{config['dataset']}; the same command goes on",
                    file=sys.stderr,
                )
                raise
    finally:
        collection.close()
    if not returns and not there:
        raise RunError(
            f"all {len(diverged)} episodes that were played diverged: give another policy= or task="
        )
    return Collected(mean_interval(returns) if returns else None, len(diverged), len(there))


def _record(
    collection: Collection, store: EpisodeStore, launch: Launch, there: set[int], diverged: "_Diverged"
) -> list[float]:
    """Record what is neither there nor known to diverge; the returns of what was recorded."""
    returns: list[float] = []
    done = there | diverged.numbers
    num_episodes = collection.config["episodes"]
    if len(done) == num_episodes:
        return returns
    title = f"collect {collection.task}"
    with ProgressDisplay(title, num_episodes, "episodes", done=len(done)) as display:
        for part in _played(collection, store, launch, done):
            diverged.add(part.diverged)
            for episode_return, num_steps in part.episodes:
                returns.append(episode_return)
                display.add("steps", num_steps)
                display.update(len(there) + len(returns) + len(diverged), {"return": f"{episode_return:.0f}"})
    return returns


class _Diverged:
    """The episodes of a collection that diverge, noted beside the shards: they are not played again.

    Errors: `RunError` for a note that cannot be read or written.
    """

    def __init__(self, collection: Collection) -> None:
        self._path = Path(collection.config["dataset"]) / f".collect-{collection.identity}.json"
        self._all: set[int] = set()
        self._num_episodes = collection.config["episodes"]
        try:
            if self._path.exists():
                self._all = {int(number) for number in json.loads(self._path.read_bytes())["diverged"]}
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise RunError(f"cannot read {self._path}: {error!r}: delete it") from error

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def numbers(self) -> set[int]:
        """Of those that are asked for now: it may have been more once."""
        return {number for number in self._all if number < self._num_episodes}

    def add(self, numbers: Sequence[int]) -> None:
        """Note more."""
        if numbers:
            self._all |= set(numbers)
            try:
                write_json(self._path, {"diverged": sorted(self._all)})
            except OSError as error:
                raise RunError(write_failure(self._path, error)) from error


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
    check_folder(config["dataset"])
    if config["compress_pixels"] and "pixels" not in config["env"]["observe"]:
        raise ConfigError(
            "compress_pixels=true: no pixels are recorded; add env.observe=[state,pixels], or leave it out"
        )
    repeat, trained_repeat = (c["env"]["action_repeat"] for c in (config, run.config if run else config))
    if repeat != trained_repeat:
        raise ConfigError(
            f"env.action_repeat={repeat}, but {config['checkpoint']} was trained with {trained_repeat}: "
            f"give env.action_repeat={trained_repeat}"
        )
    ends = collection.env.episode_length is not None or collection.env.can_terminate
    if not ends and not config["max_steps"]:
        raise ConfigError(f"task={collection.task} never ends an episode: give max_steps=, a time limit")
    for policy in collection.shares:
        collection.agent_of(policy, group=0)
    states = None
    if config["physics_state"]:
        collection.env.reset()
        states = collection.env.physics_states()
    check_columns(config["dataset"], collection.env, physics_states=states)


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
    diverged: list[int]


@dataclass(frozen=True)
class Sent:
    """What a step of a group has brought to an end, on its way from a worker: episodes as bytes."""

    episodes: list[bytes]
    diverged: list[int]

    @classmethod
    def of(cls, played: Played) -> "Sent":
        """As it is sent."""
        from worldmodel.apps.cluster.messages import packed_episode

        return cls([packed_episode(episode) for episode in played.episodes], played.diverged)

    def unpacked(self) -> Played:
        """As it was played."""
        from worldmodel.apps.cluster.messages import unpacked_episode

        return Played([unpacked_episode(message) for message in self.episodes], self.diverged)


def _recorded_numbers(store: EpisodeStore, collection: Collection) -> set[int]:
    """Which of the episodes wanted are recorded already."""
    numbers = {
        info.get("number") for info in store.episode_infos() if info.get("collection") == collection.identity
    }
    return {number for number in numbers if type(number) is int and number < collection.config["episodes"]}


def _groups(collection: Collection, done: set[int]) -> Iterator[tuple[int, set[int]]]:
    """Groups with episodes that are not `done`, and which these are."""
    num_episodes, num_envs = collection.config["episodes"], collection.config["num_envs"]
    for first in range(0, num_episodes, num_envs):
        if wanted := set(range(first, min(first + num_envs, num_episodes))) - done:
            yield first // num_envs, wanted


def _played(
    collection: Collection, store: EpisodeStore, launch: Launch, done: set[int]
) -> Iterator[Recorded]:
    """What is recorded, as it is. Errors: `RunError` where a worker was killed."""
    config, groups = collection.config, _groups(collection, done)
    if launch.num_workers == 1 and not launch.is_ray:
        for group, numbers in groups:
            yield from _recorded(collection, store, group, numbers)
        return
    # A worker on another machine sees another disk: what it plays is sent, and written here.
    work: Callable[..., Any] = _send if launch.is_ray else _work
    try:
        with launch.workers(_begin_work, (config, not launch.is_ray)) as workers:
            # A few ahead: there may be millions.
            running = {workers.submit(work, *group) for group in islice(groups, 2 * launch.num_workers)}
            while running:
                ended, running = wait(running, return_when=FIRST_COMPLETED)
                running |= {workers.submit(work, *group) for group in islice(groups, len(ended))}
                for future in ended:
                    for part in future.result():
                        yield part if isinstance(part, Recorded) else _written(config, store, part.unpacked())
    except BrokenExecutor as error:
        raise RunError(
            "a worker died, mostly killed because memory is short: give a smaller num_workers= or "
            "num_envs=. What is recorded is safe; the same command goes on from there"
        ) from error


_worker: tuple[Collection, EpisodeStore | None] | None = None


def _begin_work(config: dict[str, Any], writes: bool) -> None:
    global _worker
    store = EpisodeStore(Path(config["dataset"]), create=True) if writes else None
    _worker = Collection(config=config), store


def _work(group: int, numbers: set[int]) -> list[Recorded]:
    assert _worker is not None
    collection, store = _worker
    assert store is not None
    return list(_recorded(collection, store, group, numbers))


def _send(group: int, numbers: set[int]) -> list[Sent]:
    assert _worker is not None
    return [Sent.of(played) for played in _worker[0].play(group, numbers)]


def _recorded(
    collection: Collection, store: EpisodeStore, group: int, numbers: set[int]
) -> Iterator[Recorded]:
    """Play a group's episodes; what came of them, once it is on the disk."""
    for played in collection.play(group, numbers):
        yield _written(collection.config, store, played)


def _written(config: dict[str, Any], store: EpisodeStore, played: Played) -> Recorded:
    """Write what was played; in one shard: to sync is most of the work."""
    if played.episodes:
        store.write(played.episodes, compresses_pixels=config["compress_pixels"])
    episodes = [(episode.total_reward, episode.num_steps) for episode in played.episodes]
    return Recorded(episodes, played.diverged)
