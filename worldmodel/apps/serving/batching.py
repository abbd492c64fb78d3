"""Decisions for several robots at once: a thread plans, while the event loop listens."""

import queue
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from threading import Thread
from typing import Protocol, runtime_checkable

import numpy as np

from worldmodel.apps.memory import Observation
from worldmodel.apps.serving.request import Request
from worldmodel.apps.sessions import Session


@runtime_checkable
class Decider(Protocol):
    """Plans for several sessions together, as `SessionAgent.act` does."""

    def act(
        self, sessions: Sequence[Session], observation: Observation, deadline: float | None = None
    ) -> np.ndarray:
        """Plans (B, H, A) from observations {key: (B, ...)}."""


@dataclass(frozen=True)
class Job:
    """One request of one session, and where its plan (H, A) is waited for."""

    session: Session
    request: Request
    plan: Future[np.ndarray] = field(default_factory=Future)


class Batcher:
    """Gathers what is asked within a moment, and has it decided together.

    - `expected`: how many might ask now: nobody waits for more than these.
    - `max_batch`, `window_s`: decided together at most; waited for others at most, from the first on.
    - `plan_s`: planning ends after so long, with the best plan so far; None: when it is done.
    - `watch`: told the size and the seconds of each decision.

    A session must have one request under way at most. One whose decision fails does not harm the others that
    share it: they are decided for alone then.
    """

    def __init__(
        self,
        decider: Decider,
        *,
        expected: Callable[[], int],
        max_batch: int,
        window_s: float,
        plan_s: float | None = None,
        watch: Callable[[int, float], None] = lambda size, seconds: None,
    ) -> None:
        self._decider, self._expected, self._watch = decider, expected, watch
        self._max_batch, self._window_s, self._plan_s = max_batch, window_s, plan_s
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._thread = Thread(target=self._run, name="planning", daemon=True)

    def __enter__(self) -> "Batcher":
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Decide for what has been asked, then stop."""
        self._jobs.put(None)
        self._thread.join()

    def submit(self, session: Session, request: Request) -> Future[np.ndarray]:
        """Ask for a plan (H, A); cancel the future to take it back, as long as it has not begun."""
        job = Job(session, request)
        self._jobs.put(job)
        return job.plan

    def _run(self) -> None:
        while (first := self._jobs.get()) is not None:
            jobs, is_last = self._gather(first)
            jobs = [job for job in jobs if job.plan.set_running_or_notify_cancel()]
            if jobs:
                self._decide(jobs)
            if is_last:
                break

    def _gather(self, first: Job) -> tuple[list[Job], bool]:
        """It and those that come within the window; whether the end has come too."""
        jobs, until = [first], time.perf_counter() + self._window_s
        while len(jobs) < self._max_batch:
            left = until - time.perf_counter() if len(jobs) < self._expected() else 0.0
            try:
                job = self._jobs.get(timeout=left) if left > 0 else self._jobs.get_nowait()
            except queue.Empty:
                break
            if job is None:
                return jobs, True
            jobs.append(job)
        return jobs, False

    def _decide(self, jobs: Sequence[Job]) -> None:
        began = time.perf_counter()
        for job in jobs:
            if job.request.is_reset:
                job.session.reset()
            if job.request.goal is not None:
                job.session.goal = job.request.goal
        try:
            plans = self._decider.act(
                [job.session for job in jobs],
                _stacked([job.request.observation for job in jobs]),
                None if self._plan_s is None else began + self._plan_s,
            )
        except Exception as error:  # whatever a planner or a model makes of an observation
            if len(jobs) == 1:
                jobs[0].plan.set_exception(error)
            else:
                for job in jobs:
                    self._decide([job])
            return
        self._watch(len(jobs), time.perf_counter() - began)
        for job, plan in zip(jobs, plans, strict=True):
            job.plan.set_result(plan)


def _stacked(observations: Sequence[Mapping[str, np.ndarray]]) -> Observation:
    return {key: np.stack([each[key] for each in observations]) for key in observations[0]}
