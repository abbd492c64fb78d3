"""A policy server in the place of a trained run: the simulator is the robot that asks it."""

import os
from typing import Any

import numpy as np

import envs
from worldmodel.apps.agent import Decision, batch_size
from worldmodel.apps.config import check_saved_env
from worldmodel.apps.goals import Goal, Goals
from worldmodel.apps.memory import Observation
from worldmodel.apps.run import would_import
from worldmodel.apps.serving import check_installed
from worldmodel.apps.serving.access import TOKEN_VARIABLE
from worldmodel.errors import ConfigError, RemoteError


class RemoteAgent:
    """Asks a server (a `worldmodel.Client`) for a plan, and does its first action.

    - `goals`: where the task's goals come from, for a server that plans to them.

    Acts in one environment: one connection is one robot. Errors: `RemoteError`.
    """

    def __init__(self, client: Any, goals: Goals | None = None) -> None:
        self._client, self._goals, self._has_begun = client, goals, False

    def reset(self, is_new: np.ndarray | None = None) -> None:
        """A new episode, and its goal."""
        if is_new is None or is_new.any():
            goal = None if self._goals is None else self._goals()
            self._client.reset(None if goal is None else {key: values[0] for key, values in goal.items()})
            self._has_begun = True

    def act(self, observation: Observation) -> Decision:
        """The first action of the plan."""
        if batch_size(observation) != 1:
            raise ConfigError("a server= decides for one environment at a time")
        if not self._has_begun:
            self.reset()
        plan = self._client.act({key: values[0] for key, values in observation.items()})
        action = plan[:1].astype(np.float32)
        return Decision(action=action, mean=action, std=np.zeros_like(action))


class RemoteRun:
    """What `server=` controls, and agents that ask it; all of them over one connection.

    Errors: `ConfigError` for keys that are the server's own; `RemoteError`.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        check_installed("server=")
        from worldmodel.remote import Client

        for key in ("checkpoint", "model", "planner", "disagreement_weight"):
            if config.get(key):
                raise ConfigError(f"{key}= is the server's to choose: leave it out, or leave out server=")
        for key in ("goal", "realtime"):
            if config.get(key):
                raise ConfigError(f"{key}= needs the model here: give its checkpoint= in place of server=")
        if config["agent"] != "planner":
            raise ConfigError(f"agent={config['agent']}: the server plans; leave out agent=, or server=")
        self._client = Client(config["server"], token=os.environ.get(TOKEN_VARIABLE))

    def subject(self, config: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """The task that the server was trained on, and the settings of its environment.

        Errors: `ConfigError` where that is another task, `RemoteError` where the server tells of none.
        """
        uri, known = self._client.uri, self._client.metadata
        task, settings = known.get("task"), known.get("env")
        if not isinstance(task, str) or not isinstance(settings, dict):
            raise RemoteError(f"{uri} does not tell what it controls: it is no `worldmodel serve`")
        if config["task"] is None and would_import(task):
            raise ConfigError(
                f"{uri} controls {task}, whose module is imported; give task={task} to allow it"
            )
        if config["task"] is not None and envs.canonical_task(config["task"]) != envs.canonical_task(task):
            raise ConfigError(f"task={config['task']}, but {uri} controls {task}: leave out task=")
        try:
            check_saved_env(settings)
        except ConfigError as error:
            raise RemoteError(f"{uri} acts in an environment that cannot be: {error}") from error
        return task, {key: settings[key] for key in config["env"] if key in settings}

    @property
    def takes_goal(self) -> bool:
        """Whether the server plans to goals."""
        return bool(self._client.metadata.get("takes_goal"))

    def agent(self, goal: Goal | None) -> RemoteAgent:
        """Who acts, and seeks that goal."""
        return RemoteAgent(self._client, goal.observed if goal is not None and self.takes_goal else None)

    def close(self) -> None:
        """Say goodbye."""
        self._client.close()
