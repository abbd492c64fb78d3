"""A session of the cockpit: one robot, who plans for it, what is done to both. It knows no page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

import envs
from worldmodel.analysis.surprise import level
from worldmodel.apps.alarm import Monitor
from worldmodel.apps.build import build_env
from worldmodel.apps.cockpit.errors import error_watch
from worldmodel.apps.cockpit.futures import Futures, ImaginedFutures, foresee, future_source
from worldmodel.apps.cockpit.goal import MovableGoal, movable_goal
from worldmodel.apps.cockpit.hand import Hand
from worldmodel.apps.cockpit.kinematics import Kinematics, find_point
from worldmodel.apps.cockpit.moment import GoalMark, Moment
from worldmodel.apps.cockpit.ordinary import Tell, learn_ordinary
from worldmodel.apps.cockpit.pilot import Pilot
from worldmodel.apps.config import not_negative, positive
from worldmodel.apps.goals import GoalForesight, check_weights
from worldmodel.apps.memory import Observation
from worldmodel.apps.subject import Subject
from worldmodel.errors import ConfigError


class Session:
    """See above. `config` is that of `configs/view.yaml`; `tell` how far the episodes played first are.

    Attributes:
        moment: the latest.
        pilot: who plans.
        live: gravity, mass and friction.
        hand: pushes.
        goal: that can be moved; None where there is none.
        trail: the point whose paths are shown.
        returns: of the episodes that have ended.

    Errors: `ConfigError`, `CheckpointError`, `EnvError` or `PlannerError` for a user's mistake.
    """

    def __init__(self, config: Mapping[str, Any], tell: Tell = lambda done, total: None) -> None:
        config = dict(config) | {"server": None, "agent": "planner"}
        positive(config, "num_threads", "steps_shown")
        not_negative(config, "seed")
        check_weights(config)
        self.subject = Subject.of(config)
        self.env = _make_env(self.subject)
        try:
            self._set_up(config, tell)
        except BaseException:
            self.close()
            raise

    def _set_up(self, config: Mapping[str, Any], tell: Tell) -> None:
        subject, only = self.subject, self.env.task_envs[0]
        simulation = self.simulation = only.simulation
        self.period_s: float | None = only.control_period_s
        self._goal = subject.goal(self.env)
        foresight = subject.foresight(self.env, self._goal)
        assert foresight is not None
        self._foresight = foresight
        self.pilot = Pilot(subject, foresight)
        self.trail = find_point(simulation, config["trail"])
        self.kinematics, self.hand = Kinematics(simulation), Hand(simulation)
        self.live = envs.LiveFactors(simulation)
        self.ordinary = learn_ordinary(
            subject.run,
            subject.task,
            subject.env_config,
            simulation,
            plays_exactly=subject.is_oracle,
            tell=tell,
        )
        self._source = future_source(
            foresight,
            self.ordinary.reader,
            simulation,
            period_s=self.period_s,
            num_steps=config["steps_shown"],
        )
        run = subject.run
        self._watch = error_watch(foresight, simulation, self.ordinary)
        known = self.ordinary.surprise
        self._monitor = None if run is None or known is None else Monitor(run.model, known.whitening)
        self.returns: list[float] = []
        self._episode = -1
        self.env.reset(seed=list(self.env.env_seeds))
        self.goal: MovableGoal | None = movable_goal(
            only,
            is_sought=self._goal is not None and self._goal.is_judged,
            sees_all=subject.is_oracle,
        )
        self.moment = self.reset(seed=config["seed"])

    @property
    def planner_config(self) -> dict[str, Any]:
        """The planner as it plans now."""
        return self.pilot.config

    @property
    def task(self) -> str:
        """Canonical name of the task."""
        return str(self.env.task)

    def reset(self, seed: int | None = None) -> Moment:
        """Start an episode: the next, or that of a seed. Factors stay as they are turned."""
        seeds = None if seed is None else [seed]
        self.hand.release()
        self.hand.let_go()
        observation, _ = self.live.as_usual_during(lambda: self.env.reset(seed=seeds))
        if self._goal is not None:
            self._goal.start()
        self.pilot.reset()
        self._watch.reset()
        if self._monitor is not None:
            self._monitor.reset()
        self._step, self._return, self._is_over = 0, 0.0, False
        self._episode += 1
        self._mark = self._goal_mark()
        return self._seen(observation, 0.0, np.zeros(3))

    def step(self) -> Moment:
        """Do what was decided, and decide again; after an episode's end, start another.

        Errors: `SimulationError` where the simulation diverges: `reset` is due.
        """
        if self._is_over:
            return self.reset()
        assert self.pilot.decision is not None
        action = self.pilot.decision.action
        self._watch.note(action)
        if self._monitor is not None:
            self._monitor.note(action)
        force = self.hand.hold()
        try:
            observation, reward, terminated, truncated, _ = self.env.step(action)
        except envs.SimulationError:
            self._is_over = True
            raise
        finally:
            self.hand.let_go()
        self._step, self._return = self._step + 1, self._return + float(reward[0])
        self._is_over = bool(terminated[0] or truncated[0])
        if self._is_over:
            self.returns.append(self._return)
        return self._seen(observation, float(reward[0]), force)

    def turn_planner(self, name: str, value: int | float) -> Moment:
        """Turn a knob (see `knobs.KNOBS`) and plan again. Errors: `ConfigError`, `PlannerError`."""
        self.pilot.turn(name, value)
        return self._replan()

    def choose_planner(self, name: str) -> Moment:
        """Another planner, with the knobs as they were turned. Errors: as `turn_planner`."""
        self.pilot.choose(name)
        return self._replan()

    def turn_factor(self, name: str, value: int | float) -> Moment:
        """Turn gravity, mass or friction, and plan again. Errors: `EnvError`."""
        self.live.set(name, value)
        return self._replan()

    def move_goal(self, numbers: np.ndarray) -> Moment:
        """Move the goal, and plan again. Errors: `ConfigError`, `EnvError`."""
        self._require_goal().set_numbers(numbers)
        return self._goal_moved()

    def drag_goal(self, place: np.ndarray) -> Moment:
        """Move the goal to a place (3,), and plan again. Errors: as `move_goal`."""
        self._require_goal().set_place(place)
        return self._goal_moved()

    def push(self, force: np.ndarray, duration_s: float) -> None:
        """Push the robot in the steps that follow: see `Hand.push`."""
        self.hand.push(force, duration_s, self.period_s or duration_s)

    def show_steps(self, num_steps: int) -> None:
        """Imagine so many steps of a learned model's futures, at least the plan's own."""
        if isinstance(self._source, ImaginedFutures):
            self._source.num_steps = num_steps

    def follow(self, name: str | None) -> None:
        """Show the paths of another point. Errors: `ConfigError` for one that is not there."""
        self.trail = find_point(self.simulation, name)

    def foresee(self, num_elites: int) -> Futures:
        """The futures of the plan's best elites, as they are imagined from the latest moment."""
        plan = self.moment.plan
        elites, returns = plan.elites[0, :num_elites], plan.elite_returns[0, :num_elites]
        scored = returns.isfinite()
        if not scored.any():  # the plan itself, which nobody scored
            elites, returns, scored = plan.mean, plan.best_return, scored.new_ones(1)
        actions = self.pilot.agent.planner.decode(elites[scored]).clamp(-1, 1)
        return foresee(self._source, self.kinematics, actions, returns[scored])

    def render(self) -> np.ndarray:
        """A picture for a video: uint8 (H, W, 3). Errors: `RenderingError` where nothing here can draw."""
        return np.asarray(self.env.render()[0])

    def close(self) -> None:
        """Free the environment."""
        self.env.close()

    def _seen(self, observation: Observation, reward: float, force: np.ndarray) -> Moment:
        self._observation = observation
        signals = {} if self._monitor is None else dict(self._monitor.see(observation))
        errors = self._watch.see(observation)
        decision_s = self.pilot.decide(observation)
        known = self.ordinary.surprise
        self.moment = Moment(
            episode=self._episode,
            step=self._step,
            time_s=None if self.period_s is None else self._step * self.period_s,
            bodies=self.kinematics.now(),
            reward=reward,
            episode_return=self._return,
            plan=self.pilot.plan,
            decision_s=decision_s,
            signals=signals,
            level=level(signals, known.limits) if signals and known is not None else None,
            errors=errors,
            force=force,
            goal=self._mark,
            is_over=self._is_over,
        )
        return self.moment

    def _replan(self) -> Moment:
        decision_s = self.pilot.decide_again(self._observation)
        self.moment = replace(self.moment, plan=self.pilot.plan, decision_s=decision_s)
        return self.moment

    def _require_goal(self) -> MovableGoal:
        if self.goal is None:
            raise ConfigError(f"{self.task} has no goal that could be moved here")
        return self.goal

    def _goal_moved(self) -> Moment:
        if isinstance(self._foresight, GoalForesight):
            self._foresight.goals_moved()
        self._mark = self._goal_mark()
        self.moment = replace(self.moment, goal=self._mark)
        return self._replan()

    def _goal_mark(self) -> GoalMark | None:
        goal = self.goal
        if goal is None:
            return None
        qpos = goal.pose()
        return GoalMark(
            place=goal.place() if goal.is_place else None,
            pose=None if qpos is None else self.kinematics.bodies(qpos),
        )


def _make_env(subject: Subject) -> envs.SyncTaskVectorEnv:
    """One environment that shows states too, whatever the model observes."""
    observe = [key for key in subject.env_config.get("observe", ["state"]) if key != "state"]
    env = build_env(
        subject.task,
        subject.env_config | {"observe": ["state", *observe]},
        num_envs=1,
        seed=subject.config["seed"],
        camera=subject.config["camera"],
        how="sync",
    )
    assert isinstance(env, envs.SyncTaskVectorEnv)
    return env
