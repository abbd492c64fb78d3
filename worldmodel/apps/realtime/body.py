"""The process of a simulated robot: MuJoCo on a clock, with ears and faults."""

import signal
import time
from collections import deque
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

import envs
from worldmodel.apps.build import build_env
from worldmodel.apps.goals import is_goal_task, is_reached_in_time
from worldmodel.apps.realtime.faults import Faults
from worldmodel.apps.realtime.limits import ActionLimits
from worldmodel.apps.realtime.robot import Sighting


@dataclass
class Lived:
    """What the robot itself knows of an episode when it is over.

    - `actions`, `rewards`: of each step; actions in [-1, 1], as they took effect.
    - `physics_states`: at each tick, for pictures of it afterwards; none without MuJoCo.
    - `lateness_s`: by how much each tick came after its time: the machine's fault, not the planner's.
    - `is_solved`: whether a goal was reached; None for tasks without.
    - `error`: why it ended, where it diverged.
    """

    actions: list[np.ndarray] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    physics_states: list[np.ndarray] = field(default_factory=list)
    lateness_s: list[float] = field(default_factory=list)
    is_solved: bool | None = None
    error: str | None = None

    @property
    def episode_return(self) -> float:
        """The sum of its rewards."""
        return sum(self.rewards)


@dataclass
class Body:
    """What the process of the robot is made from."""

    task: str
    env_config: dict[str, Any]
    period_s: float
    seeds: list[int]
    faults: Faults
    watchdog_s: float
    camera: str | int | None


def live_episodes(connection: Connection, body: Body) -> None:
    """The process: one episode after another, until it is told to close or its parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's Ctrl-C comes to all; the parent ends us
    try:
        env = build_env(
            body.task, body.env_config, num_envs=1, seed=body.seeds[0], camera=body.camera, how="sync"
        )
    except Exception as error:  # the parent says what is wrong
        connection.send(("failed", error))
        return
    try:
        assert isinstance(env, envs.SyncTaskVectorEnv)
        limits = ActionLimits(*env.task_envs[0].action_bounds)
        connection.send(("ready", (limits.low, limits.high)))
        for seed in body.seeds:
            if not _await(connection, "start"):
                return
            connection.send(("lived", _Episode(env, connection, body, limits, seed).live()))
        _await(connection, "start")
    except (EOFError, OSError):
        pass  # the parent is gone
    finally:
        env.close()


def _await(connection: Connection, wanted: str) -> bool:
    """Wait to be told so; False when told to close. What was meant for the episode before is passed over."""
    while True:
        kind, _ = connection.recv()
        if kind in (wanted, "close"):
            return bool(kind == wanted)


class _Episode:
    """One episode on the clock."""

    def __init__(
        self,
        env: envs.SyncTaskVectorEnv,
        connection: Connection,
        body: Body,
        limits: ActionLimits,
        seed: int,
    ) -> None:
        self._env, self._connection, self._body, self._limits = env, connection, body, limits
        self._seed = seed
        self._chance = np.random.default_rng([seed, 1])
        self._rest = limits.from_units(np.clip(np.zeros_like(limits.low), limits.low, limits.high))
        self._commands: deque[tuple[float, np.ndarray]] = deque()  # when they take effect
        self._outbox: list[tuple[float, Sighting]] = []  # when they can be read
        self._is_stopped = False

    def live(self) -> Lived:
        """Live it; what became of it."""
        period_s, lived = self._body.period_s, Lived()
        observation, _ = self._env.reset(seed=[self._seed])
        self._connection.send(("seen", self._sighting(0, time.monotonic(), observation)))
        while not self._commands and not self._is_stopped:  # the clock starts with the first command
            self._hear(None)
        began = time.monotonic()
        in_force, told_s = self._rest, began
        self._commands = deque((began, command) for _, command in self._commands)
        if is_goal_task(self._env.task):
            lived.is_solved = False
        step, is_over = 0, False
        while not is_over:
            tick_s = began + step * period_s
            while self._commands and self._commands[0][0] <= tick_s:
                told_s, in_force = self._commands.popleft()
            is_silent = tick_s - told_s > self._body.watchdog_s
            if (state := self._physics_state()) is not None:
                lived.physics_states.append(state)
            action = self._rest if self._is_stopped or is_silent else in_force
            try:
                observation, reward, terminated, truncated, _ = self._env.step(action[None])
            except envs.SimulationError as error:
                lived.error = str(error)
                break
            lived.actions.append(action)
            lived.rewards.append(float(reward[0]))
            is_over = bool(terminated[0] or truncated[0])
            step += 1
            if lived.is_solved is not None:
                lived.is_solved = lived.is_solved or is_reached_in_time(self._env, step)
            self._sleep(began + step * period_s)
            now = time.monotonic()
            lived.lateness_s.append(max(0.0, now - (began + step * period_s)))
            if not is_over:
                self._see(step, now, observation)
        return lived

    def _see(self, step: int, now: float, observation: envs.Observation) -> None:
        """Let the tick be seen, as well as the faults allow."""
        faults, luck = self._body.faults, self._chance.random(2)
        if luck[0] < faults.dropped_share:
            return
        late_s = self._body.period_s if luck[1] < faults.late_share else 0.0
        sighting = self._sighting(step, now, observation)
        self._outbox.append((now + faults.observation_delay_s + late_s, sighting))
        self._publish()

    def _sighting(self, step: int, now: float, observation: envs.Observation) -> Sighting:
        # Copied: the environments write the next observation over this one.
        seen = {key: np.array(value[0]) for key, value in observation.items()}
        return Sighting(step=step, time_s=now, observation=seen, physics_state=self._physics_state())

    def _physics_state(self) -> np.ndarray | None:
        """None for tasks without MuJoCo."""
        try:
            return self._env.physics_states()[0]  # type: ignore[no-any-return]
        except envs.EnvError:
            return None

    def _publish(self) -> None:
        now = time.monotonic()
        for entry in [entry for entry in self._outbox if entry[0] <= now]:
            self._outbox.remove(entry)
            self._connection.send(("seen", entry[1]))

    def _sleep(self, until_s: float) -> None:
        """Sleep, all ears; observations that are due meanwhile can be read then."""
        while (left_s := until_s - time.monotonic()) > 0:
            due_s = min((entry[0] for entry in self._outbox), default=until_s) - time.monotonic()
            self._hear(max(0.0, min(left_s, due_s)))
            self._publish()
        self._hear(0.0)

    def _hear(self, timeout_s: float | None) -> None:
        """Take what was said, waiting so long for it (None: without end)."""
        while self._connection.poll(timeout_s):
            kind, content = self._connection.recv()
            if kind == "do":
                effect_s = time.monotonic() + self._body.faults.action_delay_s
                self._commands.append((effect_s, self._limits.from_units(content)))
            elif kind == "stop":
                self._is_stopped = True
            elif kind == "close":
                raise EOFError
            timeout_s = 0.0
