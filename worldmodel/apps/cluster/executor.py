"""Jobs on a Ray cluster, behind the interface of Python's own executors."""

import os
import threading
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

MAX_RETRIES = 3  # of a job whose worker dies: more often, and the job itself is to blame


class RayExecutor(ThreadPoolExecutor):
    """Does jobs on the cluster that is connected, `num_workers` at once, each on a core of its own.

    Without an `initializer` a job is a Ray task. With one, each worker is an actor, which begins with it,
    keeps what that made, and is made again where it dies. Either way Ray repeats the jobs that died with a
    worker, `MAX_RETRIES` times, on whatever machine there is: a job brings the same result whoever does it.
    Errors of a future: what the job raised; `BrokenExecutor` where its workers kept dying.
    """

    def __init__(
        self, num_workers: int, initializer: Callable[..., None] | None = None, initargs: tuple[Any, ...] = ()
    ) -> None:
        super().__init__(num_workers)  # a thread for each job under way: it waits for it
        self._begin = None if initializer is None else (initializer, initargs)
        self._task = ray.remote(_do).options(num_cpus=1, max_retries=MAX_RETRIES)
        self._actor = ray.remote(_Worker).options(num_cpus=1, max_restarts=-1, max_task_retries=MAX_RETRIES)
        self._here = threading.local()
        self._lock, self._is_stopped = threading.Lock(), False
        self._running: dict[Any, Any] = {}  # the reference of a job -> its actor, if there is one

    def submit(self, function: Callable[..., Any], /, *arguments: Any) -> Future[Any]:  # type: ignore[override]
        """Do a job some time."""
        return super().submit(self._done, function, arguments)

    def stop(self) -> None:
        """End what runs, and begin no more: a task meets a `KeyboardInterrupt`, an actor ends at once."""
        self.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            self._is_stopped = True
            running = dict(self._running)
        for reference, actor in running.items():
            with suppress(RayError, ValueError):
                if actor is None:
                    ray.cancel(reference)
                else:
                    ray.kill(actor)
        self.shutdown()

    def _done(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        with self._lock:
            if self._is_stopped:
                raise BrokenExecutor("stopped")
            reference, actor = self._started(function, arguments)
            self._running[reference] = actor
        try:
            return ray.get(reference)
        except RayTaskError as error:
            raise error.cause from error
        except RayError as error:
            raise BrokenExecutor(f"a worker died {MAX_RETRIES + 1} times over the same job") from error
        finally:
            with self._lock:
                del self._running[reference]

    def _started(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[Any, Any]:
        if self._begin is None:
            return self._task.remote(os.getcwd(), function, arguments), None
        if not hasattr(self._here, "actor"):
            self._here.actor = self._actor.remote(*self._begin)
        actor = self._here.actor
        return actor.do.remote(os.getcwd(), function, arguments), actor


class _Worker:
    """What an actor is: it begins with its first job, so that what goes wrong then is that job's error."""

    def __init__(self, initializer: Callable[..., None], initargs: tuple[Any, ...]) -> None:
        self._begin: tuple[Callable[..., None], tuple[Any, ...]] | None = (initializer, initargs)

    def do(self, folder: str, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        if self._begin is not None:
            initializer, initargs = self._begin
            _enter(folder)
            initializer(*initargs)
            self._begin = None
        return _do(folder, function, arguments)


def _do(folder: str, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    _enter(folder)
    return function(*arguments)


def _enter(folder: str) -> None:
    """Paths mean here what they mean to whoever asks, where this machine has that folder too."""
    with suppress(OSError):
        os.chdir(folder)
