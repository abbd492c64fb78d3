"""Imagined against real: the same actions played in the model and in the simulator."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import envs
from worldmodel.analysis import (
    OpenLoop,
    StateComparison,
    compare_pictures,
    compare_states,
    fit_readout,
    latents_of,
    open_loop,
)
from worldmodel.apps.bench.output import make_folder
from worldmodel.apps.build import build_env
from worldmodel.apps.config import not_negative, positive
from worldmodel.apps.decoding import open_decoder
from worldmodel.apps.imagine_report import Imagined, write_report
from worldmodel.apps.offline import check_dataset
from worldmodel.apps.progress import ProgressDisplay, console
from worldmodel.apps.rollout import rollouts
from worldmodel.apps.trained import TrainedRun, make_agent, open_run
from worldmodel.data import Episode, EpisodeDataset
from worldmodel.errors import ConfigError
from worldmodel.model import ImageDecoder, LatentModel, WorldModel
from worldmodel.model.encoder import StateFeatures

_FIT_STEPS = 1000  # agent steps that the read-out is fitted to, at least
_LEAST_STD = 1e-6  # of what moves
_NUM_DECODER_ENVS = 5
_DECODER_STREAM = 1  # of chance


def imagine(config: dict[str, Any], *, says_where: bool = True) -> dict[str, Any]:
    """Play episodes, imagine them again, write `imagine.json`, `imagine.png`, and of pictures `imagine.mp4`.

    `config` is that of `configs/imagine.yaml`. The episodes are new ones; some fit the read-out of states,
    the others are imagined. `says_where` the files are, unless they will not stay. Returns the content of
    `imagine.json`.
    """
    decoding = {f"decoder.{key}": value for key, value in config["decoder"].items()}
    positive(config | decoding, "episodes", "horizon", "every", "decoder.images")
    not_negative(config | decoding, "seed", "decoder.updates", "decoder.seed")
    run = open_run(config["checkpoint"], task=config["task"])
    agent = config["agent"] or ("planner" if isinstance(run.model, WorldModel) else "colored")
    config = config | {"agent": agent}
    recorded = _recorded(config, run)
    output = make_folder(config["output"] or str(run.directory / "imagine"))
    played = _played(config, run)
    held_out = played.held_out
    longest = max(episode.num_steps for episode in held_out)
    if longest < config["horizon"]:
        console.print(f"horizon={config['horizon']} is cut to {longest}, the longest episode", style="yellow")
    horizon = min(config["horizon"], longest)
    decoder = _decoder(config, run, recorded)
    result = open_loop(run.model, held_out, horizon=horizon, every=config["every"])
    states, readout_r2 = _read_states(run.model, played, result)
    imagined = Imagined(
        task=run.task,
        model=run.model,
        episodes=held_out,
        control_period_s=played.control_period_s,
        result=result,
        states=states,
        features=played.moving,
        decoder=decoder,
        pictures=None if decoder is None else compare_pictures(result, decoder, run.model.layout, held_out),
    )
    summary = {
        "task": run.task,
        "checkpoint": str(run.checkpoint.path),
        "agent": agent,
        "seed": config["seed"],
        "num_windows": len(result.windows),
        "readout_r2": readout_r2,
        "table": imagined.table(),
    }
    files = write_report(output, imagined, summary)
    if says_where:
        console.print(f"written {', '.join(map(str, files))}")
    return summary


def _make_env(run: TrainedRun, *, num_envs: int, seed: int) -> envs.TaskVectorEnv:
    """Environments that observe states, which are read out, and pixels where the model does."""
    observe = [key for key in ("state", "pixels") if key == "state" or key in run.model.size.observes]
    return build_env(run.task, run.config["env"] | {"observe": observe}, num_envs=num_envs, seed=seed)


@dataclass(frozen=True, kw_only=True)
class Played:
    """New episodes: those that the read-out is fitted to, and those that are imagined.

    - `moving`: the features of states that move within episodes (a goal, say, does not: images need not show
      it, and there is nothing in it to imagine); `features` has them of each episode.
    """

    fit: list[Episode]
    held_out: list[Episode]
    moving: list[int]
    angles: tuple[int, ...]
    control_period_s: float | None

    def features(self, episode: Episode) -> torch.Tensor:
        """What is read out (T + 1, F)."""
        return _features(episode, self.angles)[:, self.moving]


def _features(episode: Episode, angles: tuple[int, ...]) -> torch.Tensor:
    states = torch.from_numpy(np.array(episode.observation["state"]))
    return StateFeatures(states.shape[1], angles)(states)


def _played(config: dict[str, Any], run: TrainedRun) -> Played:
    count = config["episodes"]
    env = _make_env(run, num_envs=count, seed=config["seed"])
    try:
        episodes = _play(config, run, env, count + max(count, _num_episodes(env, _FIT_STEPS)))
    finally:
        env.close()
    spans = torch.stack([_features(episode, env.angles).std(0, correction=0) for episode in episodes])
    return Played(
        fit=episodes[: 2 * count : 2] + episodes[2 * count :],
        held_out=episodes[1 : 2 * count : 2],
        moving=torch.nonzero((spans > _LEAST_STD).any(0)).flatten().tolist(),
        angles=env.angles,
        control_period_s=env.control_period_s,
    )


def _play(
    config: dict[str, Any], run: TrainedRun, env: envs.TaskVectorEnv, num_episodes: int
) -> list[Episode]:
    agent = make_agent(
        config["agent"], run.model.size.action_dim, seed=config["seed"], run=run,
        planner_config=config.get("planner"),
    )  # fmt: skip
    played: list[Episode] = []
    with ProgressDisplay(f"act {run.task}", num_episodes, "episodes") as display:
        for episode in rollouts(env, agent, num_episodes):
            played.append(episode)
            display.update(len(played))
    return played


def _num_episodes(env: envs.TaskVectorEnv, num_steps: int) -> int:
    """How many episodes have so many agent steps, if none ends early."""
    return -(-num_steps // (env.episode_length or num_steps))


def _read_states(model: LatentModel, played: Played, result: OpenLoop) -> tuple[StateComparison, float]:
    """States read out of imagined latents, and the read-out's R2 on episodes that it was not fitted to."""

    def rows(episodes: list[Episode]) -> tuple[torch.Tensor, torch.Tensor]:
        """Latents and features of all."""
        latents = [latents_of(model, episode) for episode in episodes]
        return torch.cat(latents), torch.cat([played.features(episode) for episode in episodes])

    readout = fit_readout(*rows(played.fit))
    features = [played.features(episode) for episode in played.held_out]
    return compare_states(result, readout, features), readout.score(*rows(played.held_out))


def _recorded(config: dict[str, Any], run: TrainedRun) -> EpisodeDataset | None:
    """The dataset that was asked for, if one was. Errors: `ConfigError` for one that does not fit."""
    path = config["dataset"]
    if path is None:
        return None
    if "pixels" not in run.model.size.observes:
        raise ConfigError(
            f"dataset={path} is for the decoder of a model that observes pixels, and this one observes "
            "states: leave out dataset="
        )
    dataset = EpisodeDataset.open(path)
    env = _make_env(run, num_envs=1, seed=0)
    try:
        check_dataset(dataset, env, path, run.model.size.observes)
    finally:
        env.close()
    return dataset


def _decoder(config: dict[str, Any], run: TrainedRun, recorded: EpisodeDataset | None) -> ImageDecoder | None:
    """What shows the images that are imagined; None for a model that sees none, or where none is wanted."""
    settings = config["decoder"]
    if "pixels" not in run.model.size.observes or not settings["updates"]:
        return None
    if recorded is not None:
        source = {"dataset": str(Path(config["dataset"]).resolve()), "episodes": len(recorded)}
        return open_decoder(run, settings, source, lambda: recorded)

    def played() -> list[Episode]:
        # Other starts than those of any episode that is imagined.
        seed = int(np.random.SeedSequence([settings["seed"], _DECODER_STREAM]).generate_state(1)[0])
        env = _make_env(run, num_envs=_NUM_DECODER_ENVS, seed=seed)
        try:
            return _play(config, run, env, _num_episodes(env, settings["images"]))
        finally:
            env.close()

    return open_decoder(run, settings, {"agent": config["agent"]}, played)
