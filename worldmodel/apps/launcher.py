"""Where jobs are done, in processes of this machine or on a Ray cluster: who asks has one loop for both."""

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from worldmodel.apps.config import closest
from worldmodel.apps.interruption import end_with_parent
from worldmodel.apps.provenance import num_cores
from worldmodel.errors import ConfigError

LAUNCHERS = ("local", "ray")


@dataclass(frozen=True, kw_only=True)
class Launch:
    """How many workers, and where.

    - `launcher`: one of `LAUNCHERS`.
    - `num_workers`: 0: one for each core, of this machine or of the cluster.
    - `ray_address`: of the cluster; None: one on this machine alone, as long as it is needed.
    """

    launcher: str = "local"
    num_workers: int = 0
    ray_address: str | None = None

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "Launch":
        """As a configuration says. Errors: `ConfigError`, before anything starts."""
        launch = cls(**{key: config[key] for key in ("launcher", "num_workers", "ray_address")})
        check_place("launcher", launch.launcher, launch.ray_address)
        return launch

    @property
    def is_ray(self) -> bool:
        """Whether workers may be on other machines, which see other disks."""
        return self.launcher == "ray"

    @contextmanager
    def workers(
        self, initializer: Callable[..., None] | None = None, initargs: tuple[Any, ...] = ()
    ) -> Iterator[Executor]:
        """An executor; each worker begins with `initializer(*initargs)`.

        A job whose worker dies ends with `BrokenExecutor`; Ray's are repeated first. Where the block is left
        by an error, what runs is ended.
        """
        with self._executor(initializer, initargs) as executor:
            try:
                yield executor
            except BaseException:
                executor.stop()
                raise
            executor.shutdown()

    @contextmanager
    def _executor(self, initializer: Callable[..., None] | None, initargs: tuple[Any, ...]) -> Iterator[Any]:
        if self.is_ray:
            from worldmodel.apps.cluster.connection import connected

            with connected(self.ray_address, self.num_workers) as num_workers:
                from worldmodel.apps.cluster.executor import RayExecutor

                yield RayExecutor(num_workers, initializer, initargs)
        else:
            yield LocalExecutor(self.num_workers or num_cores(), initializer, initargs)


def check_place(key: str, place: str, ray_address: str | None) -> None:
    """Whether `place`, of the setting `key`, is one of `LAUNCHERS` that runs here. Errors: `ConfigError`."""
    if place not in LAUNCHERS:
        raise ConfigError(
            f"{key}={place}: there is no such {key}{closest(place, LAUNCHERS)}. Known: {', '.join(LAUNCHERS)}"
        )
    if place == "ray":
        from worldmodel.apps.cluster import prepare

        prepare(ray_address)
    elif ray_address is not None:
        raise ConfigError(f"ray_address={ray_address} belongs to {key}=ray: add that, or leave it out")


class LocalExecutor(ProcessPoolExecutor):
    """Processes of this machine that share its cores, and end with this one."""

    def __init__(
        self, num_workers: int, initializer: Callable[..., None] | None, initargs: tuple[Any, ...]
    ) -> None:
        super().__init__(
            num_workers,
            mp_context=multiprocessing.get_context("spawn"),  # forks would share OpenGL's and torch's threads
            initializer=_begin,
            initargs=(max(1, num_cores() // num_workers), initializer, initargs),
        )

    def stop(self) -> None:
        """End what runs, and begin no more."""
        workers = list(self._processes.values())  # Python 3.14 has terminate_workers() for it
        self.shutdown(wait=False, cancel_futures=True)
        for process in workers:
            process.terminate()


def _begin(num_threads: int, initializer: Callable[..., None] | None, initargs: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's Ctrl-C comes to all; the parent ends us
    end_with_parent()  # or who starts it again would do all twice
    torch.set_num_threads(num_threads)
    if initializer is not None:
        initializer(*initargs)
