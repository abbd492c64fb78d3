"""The main job in one go: learn a task from nothing, control it, imagine it, and show it on one page."""

import shlex
from pathlib import Path
from typing import Any

from worldmodel.apps.build import build_env
from worldmodel.apps.config import compose_config, positive, quoted, to_dict
from worldmodel.apps.control import control
from worldmodel.apps.imagine import imagine
from worldmodel.apps.page import write_page
from worldmodel.apps.progress import console
from worldmodel.apps.report import AGENTS
from worldmodel.apps.run import (
    CONFIG_FILE,
    check_new_run,
    going_on_with,
    opened_run,
    read_config,
    resumed_config,
)
from worldmodel.apps.train import make_training
from worldmodel.errors import RunError
from worldmodel.training import find_checkpoint


def demo(config: dict[str, Any]) -> Path:
    """Train, control, compare and imagine; returns the path of the page.

    `config` is that of `configs/demo.yaml`. A demo that was interrupted goes on where it stopped.
    """
    positive(config, "episodes")
    run_dir, task, seed = Path(config["run_dir"]), config["task"], config["seed"]
    train_config = _config("train", "experiment=demo", task=task, seed=seed, run_dir=run_dir)
    if (run_dir / CONFIG_FILE).exists():
        saved = read_config(run_dir)
        if (saved.get("task"), saved.get("seed")) != (task, seed):
            raise RunError(
                f"run_dir={run_dir} holds a demo of {saved.get('task')} with seed {saved.get('seed')}; "
                "choose another run_dir="
            )
        _announce(f"1/4 Go on with {run_dir}")
        train_config = resumed_config(run_dir, train_config | {"resume": True}, {"task"})
    else:
        _announce(f"1/4 Learn {task} from nothing, into {run_dir}")
        check_new_run(run_dir)
    _check_that_it_renders(train_config)
    with opened_run(run_dir, train_config):
        training = make_training(run_dir, train_config)
    again = shlex.join(["worldmodel", "demo", *(quoted(key, value) for key, value in config.items())])
    with going_on_with(again):
        training.run()
        return _show(config, train_config)


def _show(config: dict[str, Any], train_config: dict[str, Any]) -> Path:
    run_dir = Path(config["run_dir"])
    trained = {"checkpoint": run_dir, "task": train_config["task"]}
    controls: dict[str, dict[str, Any]] = {}
    for agent in AGENTS:
        if agent == "planner":
            _announce("2/4 Control the robot, one decision after another")
        elif len(controls) == 1:
            _announce("3/4 Compare with the policy prior alone, no action and random actions")
        output = run_dir / f"control-{agent}"
        settings = trained | {"agent": agent, "episodes": config["episodes"], "output": output}
        controls[agent] = control(
            _config("control", f"video={str(agent == 'planner').lower()}", "alarm=off", **settings)
        )
    _announce("4/4 Imagine the same actions in the model and in the simulator")
    imagined = imagine(_config("imagine", **trained, output=run_dir / "imagine"))
    page = write_page(run_dir, train_config, controls, imagined, find_checkpoint(run_dir))
    console.print(f"\nThe page: {page.resolve()}")
    return page


def _config(name: str, *overrides: str, **settings: Any) -> dict[str, Any]:
    """A configuration with these settings; paths may have any characters."""
    plain = [f"{key}={value}" for key, value in settings.items() if isinstance(value, int)]
    words = [quoted(key, value) for key, value in settings.items() if not isinstance(value, int)]
    return to_dict(compose_config(name, [*overrides, *plain, *words]))


def _check_that_it_renders(train_config: dict[str, Any]) -> None:
    """Find out before training whether there can be a video. Errors: `EnvError` that says what is missing."""
    env = build_env(train_config["task"], train_config["env"], num_envs=1, seed=0)
    try:
        env.reset()
        env.render()
    finally:
        env.close()


def _announce(stage: str) -> None:
    console.print(stage, style="bold")
