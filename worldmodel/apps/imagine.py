"""Imagined against real: the same actions played in the model and in the simulator."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.table import Table

from worldmodel.analysis import fit_readout, open_loop
from worldmodel.apps import plots
from worldmodel.apps.build import build_env
from worldmodel.apps.config import not_negative, positive
from worldmodel.apps.progress import ProgressDisplay, console
from worldmodel.apps.rollout import rollouts
from worldmodel.apps.trained import make_agent, open_run
from worldmodel.data import Episode
from worldmodel.errors import ConfigError, RunError
from worldmodel.files import write_json
from worldmodel.model import WorldModel
from worldmodel.model.encoder import StateEncoder

TABLE_STEPS = (1, 2, 3, 5, 10, 20, 50, 100, 200)


def imagine(config: dict[str, Any], *, says_where: bool = True) -> dict[str, Any]:
    """Play episodes, imagine them again, write `imagine.json` and `imagine.png`.

    `config` is that of `configs/imagine.yaml`. The episodes are new ones; half of them fit the read-out of
    observations, the other half is imagined. `says_where` the files are, unless they will not stay. Returns
    the content of `imagine.json`.
    """
    positive(config, "episodes", "horizon", "every")
    not_negative(config, "seed")
    run = open_run(config["checkpoint"], task=config["task"])
    model = run.world_model
    if not isinstance(model.encoder, StateEncoder):
        raise ConfigError(
            f"checkpoint={config['checkpoint']} observes {' and '.join(model.size.observes)}: what is "
            "imagined is compared as states, which takes a model of states alone (model.observes=[state])"
        )
    output = Path(config["output"]) if config["output"] else run.directory / "imagine"
    env = build_env(run.task, run.config["env"], num_envs=config["episodes"], seed=config["seed"])
    try:
        agent = make_agent(
            config["agent"], run.model.size.action_dim, seed=config["seed"], run=run,
            planner_config=config.get("planner"),
        )  # fmt: skip
        num_episodes = 2 * config["episodes"]
        with ProgressDisplay(f"act {run.task}", num_episodes, "episodes") as display:
            played: list[Episode] = []
            for episode in rollouts(env, agent, num_episodes):
                played.append(episode)
                display.update(len(played))
    finally:
        env.close()
    fit, held_out = played[::2], played[1::2]
    readout = fit_readout(*_encoded(model, fit))
    longest = max(episode.num_steps for episode in held_out)
    if longest < config["horizon"]:
        console.print(f"horizon={config['horizon']} is cut to {longest}, the longest episode", style="yellow")
    horizon = min(config["horizon"], longest)
    result = open_loop(model, readout, held_out, horizon=horizon, every=config["every"])
    summary = {
        "task": run.task,
        "checkpoint": str(run.checkpoint.path),
        "agent": config["agent"],
        "seed": config["seed"],
        "num_windows": len(result.reward),
        "readout_r2": readout.score(*_encoded(model, held_out)),
        "table": result.table(TABLE_STEPS),
    }
    try:
        output.mkdir(parents=True, exist_ok=True)
        write_json(output / "imagine.json", summary)
        plots.save(plots.imagined_and_real(result, run.task, summary["table"]), output / "imagine.png")
    except OSError as error:
        raise RunError(f"cannot write to {output}: {error.strerror or error}") from error
    console.print(error_table(summary["table"]))
    console.print(
        f"read-out of observations from latents: R2 {summary['readout_r2']:.3f} on held-out episodes"
    )
    if says_where:
        console.print(f"written {output / 'imagine.json'} and {output / 'imagine.png'}")
    return summary


def error_table(rows: list[dict[str, int | float]]) -> Table:
    """The k-step errors for the terminal."""
    table = Table(
        "steps", "reward error", "return error", "observation error", "if nothing moved", "latent error"
    )
    for row in rows:
        table.add_row(f"{row['steps']}", *(f"{value:.3f}" for key, value in row.items() if key != "steps"))
    return table


@torch.inference_mode()
def _encoded(model: WorldModel, episodes: list[Episode]) -> tuple[torch.Tensor, torch.Tensor]:
    states = torch.from_numpy(np.concatenate([episode.observation["state"] for episode in episodes]))
    assert isinstance(model.encoder, StateEncoder)
    return model.embed({"state": states}), model.encoder.features(states)
