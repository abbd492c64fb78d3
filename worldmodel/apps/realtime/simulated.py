"""A MuJoCo robot that runs on its own clock, in a process of its own."""

import multiprocessing
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from worldmodel.apps.realtime.body import Body, Lived, live_episodes
from worldmodel.apps.realtime.faults import Faults
from worldmodel.apps.realtime.robot import Sighting
from worldmodel.errors import RunError

_START_TIMEOUT_S = 120.0  # of a process that imports and compiles a model, on a busy machine


class SimulatedRobot:
    """A `RobotInterface` of a task, behind a process boundary as a real one is.

    - `control_period_s`: seconds between ticks; the task's own period lets it live in real time.
    - `seeds`: of its episodes; each `start` begins the next.
    - `watchdog_s`: without a command for so long, it comes to rest (action 0) until the next.

    Errors: `EnvError` or `ConfigError` for a task or settings that cannot be; `RunError` if its process dies.
    """

    def __init__(
        self,
        task: str,
        env_config: dict[str, Any],
        *,
        control_period_s: float,
        seeds: list[int],
        faults: Faults | None = None,
        watchdog_s: float = 1.0,
        camera: str | int | None = None,
    ) -> None:
        self.control_period_s = control_period_s
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        body = Body(task, env_config, control_period_s, seeds, faults or Faults(), watchdog_s, camera)
        self._process = context.Process(target=live_episodes, args=(theirs, body), daemon=True, name="robot")
        self._process.start()
        theirs.close()
        self.low, self.high = self._receive("ready", _START_TIMEOUT_S)
        self.lived: Lived | None = None

    @property
    def readable(self) -> Connection:
        """What can be waited for."""
        return self._connection

    @property
    def is_over(self) -> bool:
        """Whether the episode is over; `lived` then tells of it."""
        return self.lived is not None

    def start(self) -> Sighting:
        """Begin the next episode; its first observation. The clock starts with the first `send`."""
        self.lived = None
        self._tell("start")
        sighting: Sighting = self._receive("seen", _START_TIMEOUT_S)
        return sighting

    def read(self) -> Sighting | None:
        """The next sighting; None if there is none yet, or none any more."""
        while self._poll():
            kind, content = self._connection.recv()
            if kind == "seen":
                return content  # type: ignore[no-any-return]
            self.lived = content
        return None

    def send(self, action: np.ndarray) -> None:
        """What to do from the next tick on."""
        self._tell("do", np.asarray(action, np.float64))

    def stop(self) -> None:
        """Action 0 until the episode ends."""
        self._tell("stop")

    def close(self) -> None:
        """End its process."""
        with suppress(RunError):  # it may have ended already
            self._tell("close")
        self._process.join(5)
        if self._process.is_alive():
            self._process.kill()
        self._connection.close()

    def _tell(self, kind: str, content: Any = None) -> None:
        try:
            self._connection.send((kind, content))
        except OSError as error:
            raise self._died() from error

    def _poll(self, timeout_s: float = 0.0) -> bool:
        try:
            return self._connection.poll(timeout_s)
        except OSError as error:
            raise self._died() from error

    def _receive(self, kind: str, timeout_s: float) -> Any:
        """What it says next of this kind. Errors: what went wrong there; `RunError` if it says nothing."""
        until = time.monotonic() + timeout_s
        while self._poll(max(0.0, until - time.monotonic())):
            try:
                said, content = self._connection.recv()
            except EOFError as error:
                raise self._died() from error
            if said == "failed":
                raise content
            if said == kind:
                return content
        raise RunError(f"the simulated robot did not answer within {timeout_s:.0f} s")

    def _died(self) -> RunError:
        return RunError(f"the simulated robot's process ended (exit code {self._process.exitcode})")
