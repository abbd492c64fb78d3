"""Experience from workers on a Ray cluster, beside a learner that waits for none of them."""

import math
import queue
import threading
import time
from collections import deque
from contextlib import ExitStack
from itertools import count
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from worldmodel.apps.cluster.connection import connected
from worldmodel.apps.cluster.executor import MAX_RETRIES
from worldmodel.apps.cluster.explorers import ActingWorker, Stretch, as_json, packed_weights, told
from worldmodel.apps.exploration import Exploration, Explored
from worldmodel.errors import RunError
from worldmodel.training import Trainer

_PATIENCE_S = 0.5  # until a learner with nothing to do looks for signals
_FAREWELL_S = 10.0  # for stretches under way when a run ends
_RECENT = 100  # stretches that metrics are about


class RayExperience:
    """Workers act all the time: a thread for each asks for stretch after stretch, a queue holds what came.

    The learner says how to act and publishes weights; a worker pauses only where the run would get more than
    `max_ahead` agent steps ahead of the updates, or beyond its end. A worker that dies is made again by Ray,
    and its stretch repeated from another start: what is lost is the episode it was in.

    - `config`: that of `configs/train.yaml` as plain values.
    - `trainer`: whose model acts.
    - `num_episodes`: that the run has recorded, so that one that goes on meets other starts.
    """

    def __init__(self, config: dict[str, Any], trainer: Trainer, num_episodes: int) -> None:
        self._config, self._trainer = config, trainer
        self._arrived: queue.SimpleQueue[Stretch | BaseException] = queue.SimpleQueue()
        self._change = threading.Condition()
        self._how: Exploration | None = None
        # Agent steps: that may be on their way; that are; of these, what the learner has just been handed.
        self._num_allowed = self._num_on_way = self._num_handed = 0
        self._is_closed = False
        self._version, self._published_at, self._weights = 0, trainer.num_updates, None
        self._recent, self._begun = (deque[int](maxlen=_RECENT) for _ in range(2))
        self._num_received = self._num_fetched = 0
        self._waited_s = self._acted_cpu_s = 0.0
        self._stretch = config["stretch_steps"] * config["num_envs"]
        self._cluster = ExitStack()
        num_workers = self._cluster.enter_context(connected(config["ray_address"], config["num_workers"]))
        self._publish()
        facts = told(config, trainer.model, trainer.settings.discount)
        kind = ray.remote(ActingWorker)
        kind = kind.options(num_cpus=1, max_restarts=-1, max_task_retries=MAX_RETRIES)
        self._workers = [kind.remote(facts) for _ in range(num_workers)]
        seeds = [[config["seed"], num_episodes, index] for index in range(num_workers)]
        self._threads = [
            threading.Thread(target=self._keep_asking, args=(worker, seed), daemon=True)
            for worker, seed in zip(self._workers, seeds, strict=True)
        ]
        for thread in self._threads:
            thread.start()

    def explored(self, how: Exploration, num_due: int) -> list[Explored]:
        """What has come since; where no update is due, after waiting a moment for more."""
        config = self._config
        if self._trainer.num_updates >= self._published_at + config["publish_every"]:
            self._publish()
        repeat = config["env"]["action_repeat"]
        ahead = num_due / config["training"]["update_ratio"]
        left = (config["env_steps"] - how.env_steps) / repeat
        with self._change:
            self._how, self._num_allowed = how, math.ceil(min(config["max_ahead"] - ahead, left))
            self._num_on_way -= self._num_handed
            self._num_handed = 0
            self._change.notify_all()
        found = self._taken(waits=False)
        if not found and not num_due:
            began = time.perf_counter()
            found = self._taken(waits=True)
            self._waited_s += time.perf_counter() - began
        return found

    def metrics(self) -> dict[str, int | float]:
        """How many versions behind the weights of the last stretches were when these arrived, and at most
        when they began, which `max_staleness` bounds; and totals."""
        behind = list(self._recent) or [0]
        return {
            "train/staleness": sum(behind) / len(behind),
            "train/highest_staleness": max(behind),
            "train/highest_staleness_at_start": max(self._begun, default=0),
            "train/weights_version": self._version,
            "train/waited_seconds": self._waited_s,
            "train/acting_cpu_seconds": self._acted_cpu_s,
            "train/received_bytes": self._num_received,
            "train/fetched_bytes": self._num_fetched,
        }

    def close(self) -> list[Explored]:
        """End all; what came in the meantime."""
        with self._change:
            self._is_closed = True
            self._change.notify_all()
        until = time.monotonic() + _FAREWELL_S
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        found = self._taken(waits=False, is_over=True)
        for worker in self._workers:
            ray.kill(worker)
        self._workers.clear()
        self._threads.clear()
        self._cluster.close()
        return found

    def _publish(self) -> None:
        """Put weights where workers fetch them."""
        weights = ray.put(packed_weights(self._trainer.model))
        with self._change:
            self._version, self._weights = self._version + 1, weights
        self._published_at = self._trainer.num_updates

    def _taken(self, *, waits: bool, is_over: bool = False) -> list[Explored]:
        """All that lies in the queue; with `waits` at least one, if it comes soon."""
        found: list[Explored] = []
        while True:
            try:
                stretch = self._arrived.get(block=waits and not found, timeout=_PATIENCE_S)
            except queue.Empty:
                return found
            if isinstance(stretch, BaseException):
                if is_over:
                    continue
                raise stretch
            found.append(stretch.explored)
            self._recent.append(self._version - stretch.version)
            self._begun.append(stretch.behind)
            self._num_received += stretch.num_bytes
            self._num_fetched += stretch.num_fetched
            self._acted_cpu_s += stretch.cpu_seconds
            self._num_handed += self._stretch

    def _keep_asking(self, worker: Any, seed: list[int]) -> None:
        """One worker's thread."""
        try:
            for turn in count():
                with self._change:
                    self._change.wait_for(lambda: self._is_closed or self._may_ask)
                    if self._is_closed:
                        return
                    assert self._how is not None
                    self._num_on_way += self._stretch
                    # In a list a reference stays one: the worker fetches what it is to, if it has to.
                    order = (as_json(self._how), self._version, [self._weights], [*seed, turn])
                self._arrived.put(Stretch(ray.get(worker.explore.remote(*order))))
        except RayTaskError as error:
            self._arrived.put(error.cause)
        except RayError:
            self._arrived.put(
                RunError(f"a worker died {MAX_RETRIES + 1} times over one stretch: give a smaller num_envs=")
            )
        except Exception as error:  # nobody else would hear of it
            self._arrived.put(error)

    @property
    def _may_ask(self) -> bool:
        """Whether there is room for one stretch more, however long it is if it is the only one."""
        room = self._num_allowed - self._num_on_way
        return room >= self._stretch or (room > 0 and not self._num_on_way)
