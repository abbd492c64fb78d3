"""Planning in the background: for the moment at which the plan can act, not for the one that was seen."""

from __future__ import annotations

import multiprocessing
import signal
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch

from planners import Plan
from worldmodel.apps.realtime.belief import Actions, Belief
from worldmodel.apps.realtime.robot import Sighting
from worldmodel.errors import RunError

Where = Literal["process", "thread"]
_START_TIMEOUT_S = 120.0


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to plan.

    - `start_step`: the step in which the plan's first action will act.
    - `sightings`: what was seen since the last job, oldest first.
    - `actions`: what has been told since then, up to the step before `start_step`.
    - `deadline_s`: by when the plan is needed (`time.monotonic()`); None: it takes what it takes.
    - `stall_s`: hang for so long first (a fault that was asked for).
    """

    start_step: int
    sightings: tuple[Sighting, ...]
    actions: Actions
    deadline_s: float | None = None
    stall_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Planned:
    """The plan for a job: actions (H, A) from `start_step` on; iterations and seconds that it took."""

    start_step: int
    actions: np.ndarray
    num_iterations: int
    seconds: float


@runtime_checkable
class AheadPlanner(Protocol):
    """Plans from where it is told to: a `PlanningAgent`."""

    def reset(self) -> None:
        """Forget the last plan."""

    def plan_from(self, outlook: Any, size: int, *, num_steps_on: int, deadline: float | None) -> Plan:
        """The plan from there, and from the last one `num_steps_on` steps later."""


@runtime_checkable
class PlannerSource(Protocol):
    """Makes a planner where it will work; must be picklable to go to another process."""

    def build(self) -> tuple[AheadPlanner, Belief]:
        """The planner, and where it looks from."""


class BackgroundPlanner:
    """One planner at work beside the loop: asked, it answers when it is done. One job at a time.

    - `where`: a `process` of its own, or a `thread` of this one.
    """

    def __init__(self, source: PlannerSource, where: Where = "process") -> None:
        self.is_busy = False
        self._connection, theirs = multiprocessing.Pipe()
        if where == "thread":
            worker: Any = threading.Thread(target=_work, args=(theirs, source), daemon=True, name="planner")
        else:
            context = multiprocessing.get_context("spawn")
            worker = context.Process(target=_work, args=(theirs, source), daemon=True, name="planner")
        self._worker = worker
        worker.start()
        if where == "process":
            theirs.close()
        self._answer(_START_TIMEOUT_S)

    @property
    def readable(self) -> Connection:
        """What can be waited for."""
        return self._connection

    def reset(self, seed: int) -> None:
        """A new episode; what is being planned is thrown away."""
        if self.is_busy:
            self._answer(_START_TIMEOUT_S)
            self.is_busy = False
        self._tell(seed)
        self._answer(_START_TIMEOUT_S)

    def ask(self, job: Job) -> None:
        """Plan this. Never waits."""
        self._tell(job)
        self.is_busy = True

    def read(self) -> Planned | None:
        """The plan, once it is there. Never waits."""
        if not self.is_busy or not self._connection.poll():
            return None
        return self.wait()

    def wait(self) -> Planned:
        """The plan, when it is there."""
        planned: Planned = self._answer(_START_TIMEOUT_S)
        self.is_busy = False
        return planned

    def close(self) -> None:
        """End its work."""
        with suppress(OSError):  # it may have ended already
            self._connection.send(None)
        self._worker.join(5)
        if isinstance(self._worker, threading.Thread):
            return
        if self._worker.is_alive():
            self._worker.kill()

    def _tell(self, what: int | Job) -> None:
        try:
            self._connection.send(what)
        except OSError as error:
            raise RunError("the planner's process ended") from error

    def _answer(self, timeout_s: float) -> Any:
        try:
            if not self._connection.poll(timeout_s):
                raise RunError(f"the planner did not answer within {timeout_s:.0f} s")
            answer = self._connection.recv()
        except (EOFError, OSError) as error:
            raise RunError("the planner's process ended") from error
        if isinstance(answer, Exception):
            raise answer
        return answer


def _work(connection: Connection, source: PlannerSource) -> None:
    """The worker: resets (a seed), jobs, and None at the end."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's Ctrl-C comes to all; the parent ends us
        torch.set_num_threads(1)
    try:
        agent, belief = source.build()
        connection.send(None)
        actions: dict[int, np.ndarray] = {}
        previous_step: int | None = None
        while (task := connection.recv()) is not None:
            if isinstance(task, int):
                agent.reset()
                belief.reset(task)
                actions, previous_step = {}, None
                connection.send(None)
                continue
            connection.send(_planned(agent, belief, task, actions, previous_step))
            previous_step = task.start_step
    except (EOFError, OSError):
        pass  # the parent is gone
    except Exception as error:  # told where it is asked for
        connection.send(error)


def _planned(
    agent: AheadPlanner, belief: Belief, job: Job, actions: dict[int, np.ndarray], previous_step: int | None
) -> Planned:
    began = time.perf_counter()
    time.sleep(job.stall_s)
    actions |= job.actions
    for sighting in job.sightings:
        belief.see(sighting, actions)
    for step in [step for step in actions if step < job.sightings[-1].step - 1000]:
        del actions[step]
    deadline = None if job.deadline_s is None else time.perf_counter() + job.deadline_s - time.monotonic()
    num_steps_on = 1 if previous_step is None else job.start_step - previous_step
    plan = agent.plan_from(
        belief.outlook(job.start_step, actions), 1, num_steps_on=num_steps_on, deadline=deadline
    )
    return Planned(
        start_step=job.start_step,
        actions=plan.actions[0].clamp(-1, 1).cpu().numpy(),
        num_iterations=plan.num_iterations,
        seconds=time.perf_counter() - began,
    )
