"""Closed-loop control: one robot, one decision after another, on the clock."""

import time
from collections.abc import Iterator, Sequence
from contextlib import closing, nullcontext
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
from worldmodel.apps.given_goal import given_goal
from worldmodel.apps.goals import Goal, GoalForesight, goals_of, is_goal_task
from worldmodel.apps.memory import Observation
from worldmodel.apps.progress import ProgressDisplay, console
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
    run, task, env_config = _subject(config)
    output = _output(config, run, task)
    env = build_env(
        task,
        env_config,
        num_envs=1,
        seed=config["seed"],
        camera=config["camera"],
        how="sync",
        marks_goal=not isinstance(config["goal"], str),  # that of the episode is not what a file shows
    )
    try:
        goal = _goal(config, env, run)
        new_agent = partial(_agent, config, env, run, goal)
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
        num_solved, left = 0, []
        with (
            filming as video,
            ProgressDisplay(f"control {task}", config["episodes"], "episodes") as display,
        ):
            for episode in range(config["episodes"]):
                played = _play(
                    env, agent, goal, video if episode == 0 else None, watch, is_first=episode == 0
                )
                returns.append(played.episode_return)
                seconds += played.seconds
                num_solved += played.is_solved
                if goal is not None and run is not None and config["goal"] is not None:
                    left.append(goal.distance_left(run.model, played.first, played.last))
                display.update(episode + 1, {"return": f"{played.episode_return:.0f}"})
    finally:
        env.close()
    result = {
        "task": task,
        "model": "oracle" if _is_oracle(config) else "learned" if run else None,
        "checkpoint": None if run is None else str(run.checkpoint.path),
        "agent": config["agent"],
        "planner": _planner_config(config, run) if config["agent"] == "planner" else None,
        "seed": config["seed"],
        "returns": returns,
        "return": mean_interval(returns).to_json(),
        "latency": asdict(latency(seconds, period_s)),
    }
    success = success_interval(num_solved, len(returns)) if goal is not None and goal.is_judged else None
    if success is not None:
        result["success"] = success.to_json()
    if left:
        result["goal"], result["distance_left"] = config["goal"], mean_interval(left).to_json()
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
    if left:
        summary = mean_interval(left).precise()
        console.print(f"left     {summary}  (distance to the goal's embedding, of that at the start)")
    console.print(f"decision {latency(seconds, period_s)}")
    if watch is not None:
        console.print(f"alarm    {watch.told()}")
    if says_where:
        console.print(f"written  {output / CONTROL_FILE}" + (f" and {output / VIDEO_FILE}" if video else ""))
    return result


@dataclass(frozen=True)
class Played:
    """One episode: its return, the seconds of each decision, whether a goal was reached; what was seen."""

    episode_return: float
    seconds: list[float]
    is_solved: bool
    first: Observation
    last: Observation


def _play(
    env: Any,
    agent: Any,
    goal: Goal | None,
    video: ControlVideo | None = None,
    watch: Watch | None = None,
    *,
    is_first: bool,
) -> Played:
    """One episode; the first is that of the seed, whatever the warm-up has played."""
    observation, _ = env.reset(seed=list(env.env_seeds) if is_first else None)
    if goal is not None:
        goal.start()
    first = observation
    agent.reset()
    if watch is not None:
        watch.reset()
    episode_return, num_steps, seconds, is_over, is_solved = 0.0, 0, [], False, False
    while not is_over:
        frame = env.render()[0] if video is not None and video.wants_frame else None
        began = time.perf_counter()
        action = agent.act(observation).action if watch is None else watch.act(agent, observation)
        if watch is None or not watch.is_stopping:
            seconds.append(time.perf_counter() - began)
        observation, reward, terminated, truncated, _ = env.step(action)
        episode_return, num_steps = episode_return + float(reward[0]), num_steps + 1
        is_over = bool(terminated[0] or truncated[0])
        is_solved = is_solved or (goal is not None and goal.is_reached(env, num_steps))
        if video is not None:
            video.add(frame, episode_return, seconds[-1], None if watch is None else watch.level)
    if watch is not None:
        watch.end(observation)
    return Played(episode_return, seconds, is_solved, first, observation)


def _warm_up(env: Any, agent: Any, seed: int) -> None:
    """Decide a few times unmeasured: the first calls of a process allocate memory and load kernels.

    `agent` is one like the agent that is measured, whose chance and plan stay as they are.
    """
    observation, _ = env.reset(seed=[seed])
    for _ in range(5):
        agent.act(observation)


def _watch(
    config: dict[str, Any], run: TrainedRun | None, task: str, env_config: dict[str, Any]
) -> Watch | None:
    """What tells that the robot does not do what its model expects, by ordinary episodes played first."""
    if config["alarm"] == "off" or run is None:
        return None
    monitor = Monitor(run.model)

    def ordinary(num_episodes: int) -> Iterator[Sequence[Signals]]:
        seed = _ORDINARY_SEED + config["seed"]
        with closing(build_env(task, env_config, num_envs=1, seed=seed, how="sync")) as env:
            goal, watch = _goal(config, env, run), Watch(monitor)
            agent = _agent(config, env, run, goal)
            for episode in range(num_episodes):
                _play(env, agent, goal, watch=watch, is_first=episode == 0)
                yield watch.trace

    about = {key: config[key] for key in ("agent", "goal", "disagreement_weight")}
    about["model"] = run.checkpoint.state["digest"]
    about["planner"] = _planner_config(config, run) if config["agent"] == "planner" else None
    path = run.directory / f"alarm-{_acting(config, run)}.json"
    limits = calibrated(path, about, config["alarm_rate"], ordinary)
    return Watch(monitor, limits, stops=config["alarm"] == "stop")


def _subject(config: dict[str, Any]) -> tuple[TrainedRun | None, str, dict[str, Any]]:
    """What is controlled: the trained run if there is one, the task, and the settings of its environment."""
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


def _goal(config: dict[str, Any], env: Any, run: TrainedRun | None) -> Goal | None:
    """What is sought; None where rewards are all that counts."""
    model = None if run is None or isinstance(run.model, WorldModel) else run.model
    if config["goal"] is not None:
        if model is None:
            trained = "" if run is None else f", and {run.checkpoint.path} was trained with them"
            raise ConfigError(
                f"goal={config['goal']}: only models without rewards plan to goals{trained}: give the "
                "checkpoint= of a run with experiment=jepa"
            )
        return given_goal(config["goal"], env, model)
    if is_goal_task(env.task) and (model is not None or env.task_envs[0].goal.is_rewarded):
        return Goal(goals_of(env), is_judged=True)
    if model is not None and config["agent"] == "planner" and not _is_oracle(config):
        raise ConfigError(
            f"goal= is missing: {env.task} draws none. Give a picture, an observation or a physics state"
        )
    return None


def _agent(config: dict[str, Any], env: Any, run: TrainedRun | None, goal: Goal | None) -> Agent:
    if config["agent"] == "planner" and _is_oracle(config):
        foresight: Foresight = OracleForesight(
            env, num_threads=config["num_threads"], learned=None if run is None else run.foresight
        )
        return build_planning_agent(foresight, _planner_config(config, run), seed=config["seed"])
    if config["agent"] == "planner" and run is not None and not isinstance(run.model, WorldModel):
        assert goal is not None
        foresight = GoalForesight(
            run.model,
            goal.observed,
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
    """What acts, in a word: the planner's name, or the agent's."""
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
