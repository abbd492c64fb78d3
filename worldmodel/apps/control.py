"""Closed-loop control: one robot, one decision after another, on the clock."""

import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

import envs
from worldmodel.analysis.surprise import Signals
from worldmodel.apps.agent import Agent
from worldmodel.apps.alarm import Monitor, Watch, calibrated, check_alarm
from worldmodel.apps.build import action_dim, build_env, build_planning_agent
from worldmodel.apps.config import not_negative, positive
from worldmodel.apps.foresight import Foresight, OracleForesight
from worldmodel.apps.goals import GoalForesight, goals_of, has_goals
from worldmodel.apps.progress import ProgressDisplay, console
from worldmodel.apps.remote_agent import RemoteRun
from worldmodel.apps.run import default_num_threads
from worldmodel.apps.statistics import latency, mean_interval, success_interval
from worldmodel.apps.trained import TrainedRun, make_agent, open_accelerated
from worldmodel.apps.video import ControlVideo, check_drawable
from worldmodel.errors import ConfigError, RunError
from worldmodel.files import write_json
from worldmodel.model import WorldModel

CONTROL_FILE, VIDEO_FILE = "control.json", "control.mp4"
_ORDINARY_SEED = 2_000_003  # of the episodes that tell what is ordinary: far from those that are measured


def control(config: dict[str, Any], *, says_where: bool = True) -> dict[str, Any]:
    """Play `episodes` episodes; write `control.json` and, if `video`, `control.mp4` of the first.

    Without `output`, into `RUN_DIR/control-<planner, or agent>` (without a run, `runs/control/TASK/...`):
    two that differ stand beside each other.

    `config` is that of `configs/control.yaml`; `says_where` the files are, unless they will not stay.
    Returns the content of `control.json`.
    """
    positive(config, "episodes", "num_threads")
    not_negative(config, "seed", "disagreement_weight")
    torch.set_num_threads(default_num_threads(config["num_threads"]))
    remote = RemoteRun(config) if config["server"] is not None else None
    run, task, env_config = _subject(config, remote)
    output = _output(config, run, task)
    env = build_env(task, env_config, num_envs=1, seed=config["seed"], camera=config["camera"], how="sync")
    try:
        new_agent = partial(_agent, config, env, run, remote)
        period_s: float | None = env.control_period_s
        agent = new_agent()
        _make_folder(output)
        _warm_up(env, new_agent(), config["seed"])
        if config["video"]:
            check_drawable(env)
        watch = _watch(config, run, task, env_config)
        title = f"{task}   {_acting(config, run)}"
        filming = ControlVideo(output / VIDEO_FILE, title, period_s) if config["video"] else nullcontext()
        returns: list[float] = []
        seconds: list[float] = []
        num_solved = 0
        with (
            filming as video,
            ProgressDisplay(f"control {task}", config["episodes"], "episodes") as display,
        ):
            for episode in range(config["episodes"]):
                played = _play(env, agent, video if episode == 0 else None, watch)
                returns.append(played.episode_return)
                seconds += played.seconds
                num_solved += played.is_solved
                display.update(episode + 1, {"return": f"{played.episode_return:.0f}"})
    finally:
        env.close()
        if remote is not None:
            remote.close()
    result = {
        "task": task,
        "model": "oracle" if _is_oracle(config) else "learned" if run else config["server"],
        "checkpoint": None if run is None else str(run.checkpoint.path),
        "agent": config["agent"],
        "planner": _planner_config(config, run) if config["agent"] == "planner" and remote is None else None,
        "seed": config["seed"],
        "returns": returns,
        "return": mean_interval(returns).to_json(),
        "latency": asdict(latency(seconds, period_s)),
    }
    success = success_interval(num_solved, len(returns)) if has_goals(env) else None
    if success is not None:
        result["success"] = success.to_json()
    if watch is not None:
        result["alarm"] = {"mode": config["alarm"], "rate": config["alarm_rate"], **watch.to_json()}
    try:
        if not config["video"]:
            (output / VIDEO_FILE).unlink(missing_ok=True)  # it would show another episode than is told of
        write_json(output / CONTROL_FILE, result)
    except OSError as error:
        raise RunError(f"cannot write to {output}: {error.strerror or error}") from error
    console.print(f"return   {mean_interval(returns)}  (mean and 95 % interval of {len(returns)} episodes)")
    if success is not None:
        console.print(f"solved   {success.mean:.0%} [{success.low:.0%}, {success.high:.0%}]  (of the goals)")
    console.print(f"decision {latency(seconds, period_s)}")
    if watch is not None:
        console.print(f"alarm    {watch.told()}")
    if says_where:
        console.print(f"written  {output / CONTROL_FILE}" + (f" and {output / VIDEO_FILE}" if video else ""))
    return result


@dataclass(frozen=True)
class Played:
    """One episode: its return, the seconds of each decision, and whether a goal was reached at any step."""

    episode_return: float
    seconds: list[float]
    is_solved: bool


def _play(env: Any, agent: Any, video: ControlVideo | None = None, watch: Watch | None = None) -> Played:
    """One episode."""
    observation, _ = env.reset()
    agent.reset()
    if watch is not None:
        watch.reset()
    episode_return, seconds, is_over, is_solved = 0.0, [], False, False
    while not is_over:
        frame = env.render()[0] if video is not None and video.wants_frame else None
        began = time.perf_counter()
        action = agent.act(observation).action if watch is None else watch.act(agent, observation)
        if watch is None or not watch.is_stopping:
            seconds.append(time.perf_counter() - began)
        observation, reward, terminated, truncated, _ = env.step(action)
        episode_return += float(reward[0])
        is_over = bool(terminated[0] or truncated[0])
        is_solved = is_solved or (has_goals(env) and envs.is_solved(env.task_envs[0]))
        if video is not None:
            video.add(frame, episode_return, seconds[-1], None if watch is None else watch.level)
    if watch is not None:
        watch.end(observation)
    return Played(episode_return, seconds, is_solved)


def _warm_up(env: Any, agent: Any, seed: int) -> None:
    """Decide a few times unmeasured: the first calls of a process allocate memory and load kernels.

    `agent` is one like the agent that is measured, whose chance and plan stay as they are.
    """
    observation, _ = env.reset(seed=[seed])
    for _ in range(5):
        agent.act(observation)
    env.reset(seed=list(env.env_seeds))


def _watch(
    config: dict[str, Any], run: TrainedRun | None, task: str, env_config: dict[str, Any]
) -> Watch | None:
    """What tells that the robot does not do what its model expects; ordinary episodes are played first.

    These, with starts of their own and the agent that is asked for, are kept with the run.
    """
    if config["alarm"] == "off" or run is None:
        return None
    monitor, acting = Monitor(run.model), _acting(config, run)

    def ordinary(num_episodes: int) -> Iterator[Sequence[Signals]]:
        env = build_env(task, env_config, num_envs=1, seed=_ORDINARY_SEED + config["seed"], how="sync")
        try:
            agent, watch = _agent(config, env, run), Watch(monitor)
            for _ in range(num_episodes):
                _play(env, agent, watch=watch)
                yield watch.trace
        finally:
            env.close()

    about = {
        "model": run.checkpoint.state["digest"],
        "agent": config["agent"],
        "planner": _planner_config(config, run) if config["agent"] == "planner" else None,
        "disagreement_weight": config["disagreement_weight"],
    }
    limits = calibrated(run.directory / f"alarm-{acting}.json", about, config["alarm_rate"], ordinary)
    return Watch(monitor, limits, stops=config["alarm"] == "stop")


def _subject(
    config: dict[str, Any], remote: RemoteRun | None
) -> tuple[TrainedRun | None, str, dict[str, Any]]:
    """What is controlled: the trained run if there is one, the task, and the settings of its environment."""
    if remote is not None:
        check_alarm(config, has_model=False)
        return None, *remote.subject(config)
    run = open_accelerated(config)
    check_alarm(config, has_model=run is not None)
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
    return run, task, config["env"] if run is None else run.config["env"]


def _agent(
    config: dict[str, Any], env: Any, run: TrainedRun | None, remote: RemoteRun | None = None
) -> Agent:
    if remote is not None:
        return remote.agent(env)
    if config["agent"] == "planner" and _is_oracle(config):
        foresight: Foresight = OracleForesight(
            env, num_threads=config["num_threads"], learned=None if run is None else run.foresight
        )
        return build_planning_agent(foresight, _planner_config(config, run), seed=config["seed"])
    if config["agent"] == "planner" and run is not None and not isinstance(run.model, WorldModel):
        foresight = GoalForesight(
            run.model,
            goals_of(env),
            disagreement_weight=run.disagreement_weight,
            acceleration=run.acceleration,
        )
        return build_planning_agent(foresight, _planner_config(config, run), seed=config["seed"])
    return make_agent(
        config["agent"], action_dim(env), seed=config["seed"], run=run, planner_config=config.get("planner")
    )


def _planner_config(config: dict[str, Any], run: TrainedRun | None) -> dict[str, Any]:
    given: dict[str, Any] | None = config.get("planner")
    if run is not None:
        return run.planner_config(given)
    if given is None or "name" not in given:
        raise ConfigError("planner= is missing: name a planner, such as planner=icem")
    return given


def _acting(config: dict[str, Any], run: TrainedRun | None) -> str:
    """What acts, in a word: the planner's name, the agent's, or that it is a server."""
    if config["server"] is not None:
        return "server"
    if config["agent"] != "planner":
        return str(config["agent"])
    name = str(_planner_config(config, run)["name"])
    return f"oracle-{name}" if _is_oracle(config) else name


def _is_oracle(config: dict[str, Any]) -> bool:
    return bool((config.get("model") or {}).get("name") == "oracle")


def _output(config: dict[str, Any], run: TrainedRun | None, task: str) -> Path:
    beside = Path("runs") / "control" / envs.canonical_task(task) if run is None else run.directory
    return Path(config["output"]) if config["output"] else beside / f"control-{_acting(config, run)}"


def _make_folder(output: Path) -> None:
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot make output={output}: {error.strerror or error}") from error
