"""What acts, and in what: read from `checkpoint`, `server`, `task`, `model`, `agent` and `planner`."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import envs
from worldmodel.apps.agent import Agent
from worldmodel.apps.build import action_dim, build_planning_agent
from worldmodel.apps.foresight import Foresight, OracleForesight
from worldmodel.apps.given_goal import sought_goal
from worldmodel.apps.goals import Goal, foresight_of, goals_of
from worldmodel.apps.remote_agent import RemoteRun
from worldmodel.apps.trained import TrainedRun, make_agent, open_accelerated
from worldmodel.errors import ConfigError, RunError
from worldmodel.files import reason_of


@dataclass(frozen=True)
class Subject:
    """The trained run, if there is one, the task, and the settings of its environment."""

    config: dict[str, Any]
    run: TrainedRun | None
    task: str
    env_config: dict[str, Any]
    remote: RemoteRun | None = None  # a policy server in the place of the run

    @classmethod
    def of(cls, config: dict[str, Any]) -> "Subject":
        """That of a `configs/control.yaml`. Errors: `ConfigError` where something is missing."""
        if config["server"] is not None:
            remote = RemoteRun(config)
            return cls(config, None, *remote.subject(config), remote)
        run = open_accelerated(config)
        if run is not None:
            run = replace(run, disagreement_weight=config["disagreement_weight"])
        if run is None and not _is_oracle(config) and config["agent"] in ("planner", "policy"):
            raise ConfigError(
                "checkpoint= is missing: give a run folder, or plan in the simulator itself with "
                "model=oracle task=TASK"
            )
        task = config["task"] or (None if run is None else run.task)
        if task is None:
            raise ConfigError("task= is missing: name a task, such as task=cheetah-run")
        # A learned model acts in the environment that it was trained in.
        return cls(config, run, task, config["env"] if run is None else run.config["env"])

    @property
    def is_oracle(self) -> bool:
        """Whether it plans in the simulator itself."""
        return _is_oracle(self.config)

    @property
    def has_planner(self) -> bool:
        """Whether a planner acts, here."""
        return bool(self.config["agent"] == "planner" and self.remote is None)

    @property
    def planner_config(self) -> dict[str, Any]:
        """Its planner's. Errors: `ConfigError` where none is named."""
        given: dict[str, Any] | None = self.config.get("planner")
        if self.run is not None:
            return self.run.planner_config(given)
        if given is None or "name" not in given:
            raise ConfigError("planner= is missing: name a planner, such as planner=icem")
        return given

    @property
    def acting(self) -> str:
        """What acts, in a word: the planner's name, the agent's, or that it is a server."""
        if self.remote is not None:
            return "server"
        if not self.has_planner:
            return str(self.config["agent"])
        name = str(self.planner_config["name"])
        return f"oracle-{name}" if self.is_oracle else name

    def goal(self, env: envs.SyncTaskVectorEnv) -> Goal | None:
        """What is sought in the one environment that `env` holds; None where rewards are all that counts.

        Errors: `ConfigError` for a goal that cannot be, or where one is missing.
        """
        if self.remote is not None and self.remote.takes_goal:
            return Goal(goals_of(env), is_judged=True)
        plans = self.has_planner and not self.is_oracle
        return sought_goal(self.config["goal"], env, self.run, plans_in_model=plans)

    def agent(self, env: envs.SyncTaskVectorEnv, goal: Goal | None) -> Agent:
        """What acts there, and seeks that goal."""
        if self.remote is not None:
            return self.remote.agent(goal)
        seed = self.config["seed"]
        if self.has_planner and (foresight := self.foresight(env, goal)) is not None:
            return build_planning_agent(foresight, self.planner_config, seed=seed)
        return make_agent(
            self.config["agent"],
            action_dim(env),
            seed=seed,
            run=self.run,
            planner_config=self.config.get("planner"),
        )

    def foresight(self, env: envs.SyncTaskVectorEnv, goal: Goal | None) -> Foresight | None:
        """Where its planner's futures come from; None without a model."""
        run = self.run
        if self.is_oracle:
            learned = None if run is None else run.foresight
            return OracleForesight(env, num_threads=self.config["num_threads"], learned=learned)
        if run is None:
            return None
        return foresight_of(run, None if goal is None else goal.observed, self.config)

    def to_json(self) -> dict[str, Any]:
        """What acted, for a file of what came of it."""
        learned = self.config["server"] if self.run is None else "learned"
        return {
            "task": self.task,
            "model": "oracle" if self.is_oracle else learned,
            "checkpoint": None if self.run is None else str(self.run.checkpoint.path),
            "agent": self.config["agent"],
            "planner": self.planner_config if self.has_planner else None,
            "seed": self.config["seed"],
        }

    def close(self) -> None:
        """Say goodbye to the server, if there is one."""
        if self.remote is not None:
            self.remote.close()

    def output(self, suffix: str = "") -> Path:
        """The folder for what is found, made. Errors: `RunError` where it cannot be."""
        runs = Path("runs") / "control" / envs.canonical_task(self.task)
        beside = runs if self.run is None else self.run.directory
        given = self.config["output"]
        output = Path(given) if given else beside / f"control-{self.acting}{suffix}"
        try:
            output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"cannot make output={output}: {reason_of(error)}") from error
        return output


def _is_oracle(config: dict[str, Any]) -> bool:
    return bool((config.get("model") or {}).get("name") == "oracle")
