"""Tiny Gymnasium tasks; `task=toy_tasks:Point-v0` registers them in any process that finds this file."""

import contextlib
import os
import signal
import time
from typing import ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces

POINT, COUNT, BROKEN, UNBOUNDED, BARREN, FRAGILE, MORTAL, PLANE, DOOMED = (
    f"toy_tasks:{name}-v0"
    for name in ("Point", "Count", "Broken", "Unbounded", "Barren", "Fragile", "Mortal", "Plane", "Doomed")
)
POINT_STEPS = 20
# What `tiny()` adds to a command: a run of a few seconds.
TINY = (
    "env.action_repeat=1",
    "model.latent_dim=16",
    "model.hidden_dim=16",
    "model.encoder_dim=16",
    "model.num_bins=21",
    "planner.num_candidates=16",
    "planner.num_elites=4",
    "planner.num_iterations=2",
    "planner.num_proposals=2",
)
TINY_TRAINING = (
    "env_steps=200",
    "random_steps=40",
    "training.batch_size=8",
    "training.update_ratio=0.25",
    "eval_every=100",
    "eval_episodes=2",
    "checkpoint_every=100",
    *TINY,
)


def push_back(observation, generator):
    """A policy: against the position, a little at random."""
    position = observation["state"][:, :1]
    return -position + 0.1 * generator.standard_normal(position.shape)


def against(observation, generator):
    """The same without chance."""
    return -observation["state"][:, :1]


def slow_push(observation, generator):
    """The same, as slow as a planner."""
    time.sleep(0.01)
    return push_back(observation, generator)


def kill_itself(observation, generator):
    """What the system does where memory is short."""
    os.kill(os.getpid(), signal.SIGKILL)


def kill_itself_once(observation, generator):
    """The same in the first process that comes here, of all that see the file $TOY_KILLED."""
    with contextlib.suppress(FileExistsError):
        os.close(os.open(os.environ["TOY_KILLED"], os.O_CREAT | os.O_EXCL))
        kill_itself(observation, generator)
    return push_back(observation, generator)


def three_actions(observation, generator):
    """Wrong: the point has one."""
    return np.zeros((len(observation["state"]), 3))


class Point(gymnasium.Env):
    """Push a point to the middle; an episode could terminate, but nobody gets that far."""

    metadata: ClassVar = {"render_modes": ["rgb_array"]}
    dt = 0.05

    def __init__(self, render_mode=None):
        self.render_mode = render_mode
        self.action_space = spaces.Box(-1.0, 1.0, (1,))
        self.observation_space = spaces.Box(-np.inf, np.inf, (2,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state = self.np_random.uniform(-1, 1, 2).astype(np.float32)
        return self.state.copy(), {}

    def step(self, action):
        position, velocity = self.state
        velocity = 0.9 * velocity + 0.3 * float(action[0])
        self.state = np.array([position + 0.1 * velocity, velocity], np.float32)
        is_lost = bool(abs(self.state[0]) > 9)
        return self.state.copy(), 1.0 - abs(float(self.state[0])), is_lost, False, {}

    def render(self):
        image = np.full((60, 60, 3), 200, np.uint8)
        column = int(np.clip(30 + 14 * self.state[0], 2, 57))
        image[28:32, column - 2 : column + 3] = (220, 60, 40)
        return image


class Plane(Point):
    """Two points at once, each with an action of its own; paid for the worse of both."""

    def __init__(self, render_mode=None):
        super().__init__(render_mode)
        self.action_space = spaces.Box(-1.0, 1.0, (2,))
        self.observation_space = spaces.Box(-np.inf, np.inf, (4,))

    def reset(self, *, seed=None, options=None):
        gymnasium.Env.reset(self, seed=seed)
        self.state = self.np_random.uniform(-1, 1, 4).astype(np.float32)
        return self.state.copy(), {}

    def step(self, action):
        position, velocity = np.split(self.state, 2)
        velocity = 0.9 * velocity + 0.3 * np.asarray(action)
        self.state = np.concatenate([position + 0.1 * velocity, velocity]).astype(np.float32)
        return self.state.copy(), 1.0 - float(np.abs(self.state[:2]).max()), False, False, {}


class Broken(Point):
    """A point whose simulator returns NaN in the `first_nan`-th step after it was made."""

    first_nan: ClassVar = 50

    def __init__(self, render_mode=None):
        super().__init__(render_mode)
        self.num_steps = 0

    def step(self, action):
        observation, *rest = super().step(action)
        self.num_steps += 1
        if self.num_steps == self.first_nan:
            observation[0] = np.nan
        return observation, *rest


class Fragile(Point):
    """A point whose start decides what becomes of its episodes: each of `KINDS` as often."""

    KINDS = ("goes on", "ends early", "diverges")

    def reset(self, *, seed=None, options=None):
        observation, info = super().reset(seed=seed)
        self.kind = self.KINDS[self.np_random.integers(len(self.KINDS))]
        self.num_steps = 0
        return observation, info

    def step(self, action):
        observation, reward, is_lost, *rest = super().step(action)
        self.num_steps += 1
        if self.kind == "diverges" and self.num_steps == 8:
            observation[0] = np.nan
        return observation, reward, is_lost or (self.kind == "ends early" and self.num_steps == 5), *rest


class Barren(Point):
    """A point that is paid in the `first_paid`-th episode after it was made alone, whatever it does."""

    first_paid: ClassVar = 10**9

    def __init__(self, render_mode=None):
        super().__init__(render_mode)
        self.num_episodes = 0

    def reset(self, *, seed=None, options=None):
        self.num_episodes += 1
        return super().reset(seed=seed)

    def step(self, action):
        observation, _, *rest = super().step(action)
        return observation, float(self.num_episodes == self.first_paid), *rest


class Mortal(Point):
    """A point whose process is killed as soon as it moves, unless a launcher has started that again."""

    def step(self, action):
        if os.environ.get("TORCHELASTIC_RESTART_COUNT") == "0":
            os.kill(os.getpid(), signal.SIGKILL)
        return super().step(action)


class Doomed(Point):
    """A point whose process is killed in its second episode, once, unless it is that of $TOY_LEARNER.

    In $TOY_KILLED.ended are the last states of all episodes that ended in other processes.
    """

    num_episodes = num_steps = 0

    def reset(self, *, seed=None, options=None):
        self.num_episodes, self.num_steps = self.num_episodes + 1, 0
        return super().reset(seed=seed)

    def step(self, action):
        result = super().step(action)
        self.num_steps += 1
        if os.environ["TOY_LEARNER"] != str(os.getpid()):
            if self.num_episodes == 2 and self.num_steps == 3:
                kill_itself_once({"state": self.state[None]}, self.np_random)
            if self.num_steps == POINT_STEPS:
                with open(f"{os.environ['TOY_KILLED']}.ended", "a") as file:
                    file.write(f"{self.state.tobytes().hex()}\n")
        return result


class Unbounded(Point):
    """A point with actions that have no bounds."""

    def __init__(self, render_mode=None):
        super().__init__(render_mode)
        self.action_space = spaces.Box(-np.inf, np.inf, (1,))


class Count(gymnasium.Env):
    """Every number says where it comes from: the observation is (seed drawn, episode, step).

    `ends[i]` lists, for the i-th environment made, the steps and the kind of end of its episodes in turn.
    """

    ends: ClassVar[list[list[tuple[int, str]]]] = []
    num_made: ClassVar = 0

    def __init__(self):
        self.index = Count.num_made
        Count.num_made += 1
        self.action_space = spaces.Box(-1.0, 1.0, (1,))
        self.observation_space = spaces.Box(-np.inf, np.inf, (4,))
        self.episode = -1

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None:
            self.episode = -1
        self.episode, self.step_number = self.episode + 1, 0
        self.draw = self.np_random.integers(1000)
        return self._observation(), {}

    def step(self, action):
        self.step_number += 1
        plan = self.ends[self.index]
        steps, kind = plan[self.episode % len(plan)]
        is_over = self.step_number == steps
        reward = 1000 * self.index + 100 * self.episode + self.step_number + float(action[0])
        return (
            self._observation(),
            reward,
            is_over and kind == "terminated",
            is_over and kind == "truncated",
            {},
        )

    def _observation(self):
        return np.array([self.index, self.episode, self.step_number, self.draw], np.float32)


gymnasium.register("Point-v0", entry_point=Point, max_episode_steps=POINT_STEPS)
gymnasium.register("Plane-v0", entry_point=Plane, max_episode_steps=POINT_STEPS)
gymnasium.register("Broken-v0", entry_point=Broken, max_episode_steps=POINT_STEPS)
gymnasium.register("Fragile-v0", entry_point=Fragile, max_episode_steps=POINT_STEPS)
gymnasium.register("Mortal-v0", entry_point=Mortal, max_episode_steps=POINT_STEPS)
gymnasium.register("Doomed-v0", entry_point=Doomed, max_episode_steps=POINT_STEPS)
gymnasium.register("Unbounded-v0", entry_point=Unbounded, max_episode_steps=POINT_STEPS)
gymnasium.register("Barren-v0", entry_point=Barren, max_episode_steps=POINT_STEPS)
gymnasium.register("Count-v0", entry_point=Count)
# By its name it is known never to terminate, and it has no limit.
gymnasium.register("Pendulum-v77", entry_point="gymnasium.envs.classic_control:PendulumEnv")
