"""Closed-loop control: one robot, one decision after another, on the clock."""

import time
from array import array
from collections.abc import Iterator
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch

import envs
from worldmodel.apps.alarm import Monitor, Trace, Watch, calibrated, check_alarm
from worldmodel.apps.build import build_env
from worldmodel.apps.config import not_negative, positive
from worldmodel.apps.goals import Goal, check_weights
from worldmodel.apps.memory import Observation
from worldmodel.apps.progress import ProgressDisplay, console
from worldmodel.apps.run import default_num_threads
from worldmodel.apps.statistics import latency, mean_interval, success_interval
from worldmodel.apps.subject import Subject
from worldmodel.apps.video import ControlVideo, check_drawable
from worldmodel.errors import RunError
from worldmodel.files import reason_of, write_json

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
    not_negative(config, "seed")
    check_weights(config)
    torch.set_num_threads(default_num_threads(config["num_threads"]))
    subject = Subject.of(config)
    run, task = subject.run, subject.task
    check_alarm(config, has_model=run is not None)
    env = build_env(
        task,
        subject.env_config,
        num_envs=1,
        seed=config["seed"],
        camera=config["camera"],
        how="sync",
        marks_goal=not isinstance(config["goal"], str),  # that of the episode is not what a file shows
    )
    assert isinstance(env, envs.SyncTaskVectorEnv)
    try:
        goal = subject.goal(env)
        new_agent = partial(subject.agent, env, goal)
        period_s: float | None = env.control_period_s
        agent = new_agent()
        output = subject.output()
        _warm_up(env, new_agent(), config["seed"])
        if config["video"]:
            check_drawable(env)
        watch = _watch(subject)
        title = f"{task}   {subject.acting}"
        filming = ControlVideo(output / VIDEO_FILE, title, period_s) if config["video"] else nullcontext()
        returns: list[float] = []
        seconds = array("d")  # of every decision, for days
        num_solved, left = 0, []
        with (
            filming as video,
            ProgressDisplay(f"control {task}", config["episodes"], "episodes") as display,
        ):
            for episode in range(config["episodes"]):
                if episode == 0:  # that of the seed, whatever the warm-up has played
                    played = play(env, agent, goal, video, watch, seeds=list(env.env_seeds))
                else:
                    played = play(env, agent, goal, None, watch)
                returns.append(played.episode_return)
                seconds.extend(played.seconds)
                num_solved += played.is_solved
                if goal is not None and run is not None and config["goal"] is not None:
                    left.append(goal.distance_left(run.model, played.first, played.last))
                display.update(episode + 1, {"return": f"{played.episode_return:.0f}"})
    finally:
        env.close()
        subject.close()
    result = {
        **subject.to_json(),
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
        raise RunError(f"cannot write to {output}: {reason_of(error)}") from error
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


def play(
    env: Any,
    agent: Any,
    goal: Goal | None = None,
    video: ControlVideo | None = None,
    watch: Watch | None = None,
    *,
    seeds: list[int] | None = None,
) -> Played:
    """One episode: the next, or that of the seeds."""
    observation, _ = env.reset(seed=seeds)
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


def _watch(subject: Subject) -> Watch | None:
    """What tells that the robot does not do what its model expects, by ordinary episodes played first."""
    config, run = subject.config, subject.run
    if config["alarm"] == "off" or run is None:
        return None
    model, ahead = run.model, config["alarm_ahead"]

    def ordinary(num_episodes: int) -> Iterator[Trace]:
        seed = _ORDINARY_SEED + config["seed"]
        with closing(build_env(subject.task, subject.env_config, num_envs=1, seed=seed, how="sync")) as env:
            assert isinstance(env, envs.SyncTaskVectorEnv)
            goal, watch = subject.goal(env), Watch(Monitor(model, ahead=ahead))
            agent = subject.agent(env, goal)
            for _ in range(num_episodes):
                play(env, agent, goal, watch=watch)
                yield watch.trace

    about = {key: config[key] for key in ("agent", "goal", "disagreement_weight")}
    about["model"], about["ahead"] = run.checkpoint.state["digest"], ahead
    about["planner"] = subject.planner_config if subject.has_planner else None
    path = run.directory / f"alarm-{subject.acting}.json"
    known = calibrated(path, about, config["alarm_rate"], model.layout.embedding_dim, ordinary)
    monitor = Monitor(model, known.whitening, ahead=ahead)
    return Watch(monitor, known.limits, stops=config["alarm"] == "stop")
