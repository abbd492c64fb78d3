"""The main job in one go: learn a task from nothing, control it, imagine it, and show it on one page."""

from pathlib import Path
from typing import Any

from worldmodel.apps.config import compose_config, positive, to_dict
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

BASELINES = tuple(agent for agent in AGENTS if agent != "planner")


def demo(config: dict[str, Any]) -> Path:
    """Train, control, compare and imagine; returns the path of the page.

    `config` is that of `configs/demo.yaml`. A demo that was interrupted goes on where it stopped.
    """
    positive(config, "episodes")
    run_dir, task, seed = Path(config["run_dir"]), config["task"], config["seed"]
    train_overrides = ["experiment=demo", f"task={task}", f"seed={seed}", f"run_dir={run_dir}"]
    train_config = to_dict(compose_config("train", train_overrides))
    if (run_dir / CONFIG_FILE).exists():
        saved = read_config(run_dir)
        if (saved.get("task"), saved.get("seed")) != (task, seed):
            raise RunError(
                f"run_dir={run_dir} holds a demo of {saved.get('task')} with seed {saved.get('seed')}; "
                "choose another run_dir="
            )
        _announce(f"1/4 Go on with {run_dir}")
        train_config = resumed_config(run_dir, train_config | {"resume": True}, set())
    else:
        _announce(f"1/4 Learn {task} from nothing, into {run_dir}")
        check_new_run(run_dir)
    with opened_run(run_dir, train_config):
        training = make_training(run_dir, train_config)
    with going_on_with("worldmodel demo " + " ".join(f"{key}={value}" for key, value in config.items())):
        training.run()
        return _show(config, train_config)


def _show(config: dict[str, Any], train_config: dict[str, Any]) -> Path:
    run_dir = Path(config["run_dir"])
    checkpoint = f"checkpoint={run_dir}"
    episodes = f"episodes={config['episodes']}"
    _announce("2/4 Control the robot, one decision after another")
    controls = {"planner": _control([checkpoint, episodes, f"output={run_dir}/control"])}
    _announce("3/4 Compare with the policy prior alone, no action and random actions")
    for agent in BASELINES:
        overrides = [
            checkpoint,
            episodes,
            f"agent={agent}",
            "video=false",
            f"output={run_dir}/control-{agent}",
        ]
        controls[agent] = _control(overrides)
    _announce("4/4 Imagine the same actions in the model and in the simulator")
    imagined = imagine(to_dict(compose_config("imagine", [checkpoint, f"output={run_dir}/imagine"])))
    page = write_page(run_dir, train_config, controls, imagined, find_checkpoint(run_dir))
    console.print(f"\nThe page: {page.resolve()}")
    return page


def _announce(stage: str) -> None:
    console.print(stage, style="bold")


def _control(overrides: list[str]) -> dict[str, Any]:
    return control(to_dict(compose_config("control", overrides)))
