"""`control realtime=true`: closed-loop control of a robot that does not wait for its planner."""

from __future__ import annotations

from typing import Any

import numpy as np

import envs
from worldmodel.apps import plots
from worldmodel.apps.build import build_env
from worldmodel.apps.config import not_negative, positive
from worldmodel.apps.control import CONTROL_FILE, VIDEO_FILE
from worldmodel.apps.goals import check_weights
from worldmodel.apps.progress import ProgressDisplay, console
from worldmodel.apps.realtime.report import Clock, timeline
from worldmodel.apps.realtime.run import RealtimeControl, RealtimeEpisode, episode_seeds
from worldmodel.apps.statistics import mean_interval, success_interval
from worldmodel.apps.subject import Subject
from worldmodel.apps.video import ControlVideo, check_drawable
from worldmodel.errors import ConfigError, RunError
from worldmodel.files import reason_of, write_json

PLOT_FILE = "realtime.png"


def control_realtime(config: dict[str, Any], *, says_where: bool = True) -> dict[str, Any]:
    """Live `episodes` episodes; write `control.json`, `realtime.png` and, if `video`, `control.mp4`.

    The picture and the video are of the first; the video is drawn afterwards, for drawing takes time that the
    planner needs. `config` is that of `configs/control.yaml`. Returns the content of `control.json`.
    Errors: `ConfigError`, `EnvError`, `CheckpointError` or `RunError` for a user's mistake.
    """
    positive(config, "episodes", "num_threads")
    not_negative(config, "seed")
    check_weights(config)
    subject = Subject.of(config)
    _check(subject)
    env = build_env(
        subject.task, subject.env_config, num_envs=1, seed=config["seed"], camera=config["camera"], how="sync"
    )
    assert isinstance(env, envs.SyncTaskVectorEnv)
    try:
        if config["video"]:
            _check_filmable(env)
        output = subject.output("-realtime")
        seeds = episode_seeds(config["seed"], config["episodes"])
        subject.goal(env)  # a mistake is told now, not by the planner's process
        first: RealtimeEpisode | None = None  # what pictures are of; the others are told in numbers
        returns: list[float] = []
        solved: list[bool] = []
        with (
            RealtimeControl(
                subject, env, seeds=seeds, loop=config["loop"], faults=config["faults"]
            ) as control,
            ProgressDisplay(f"control {subject.task} in real time", len(seeds), "episodes") as display,
        ):
            clock = Clock(control.period_s)
            for episode in range(len(seeds)):
                live = control.live(episode)
                first = first or live
                clock.add(live)
                returns.append(live.lived.episode_return)
                if live.lived.is_solved is not None:
                    solved.append(live.lived.is_solved)
                if live.lived.error:
                    display.note(f"episode {episode} ended early: {live.lived.error}")
                display.update(episode + 1, {"return": f"{returns[-1]:.0f}"})
        assert first is not None
        period_s = control.period_s
        title = f"{subject.task}   {subject.acting} in real time"
        if config["video"]:
            _film(env, seeds[0], first, ControlVideo(output / VIDEO_FILE, title, period_s))
    finally:
        env.close()
    result = {
        **subject.to_json(),
        "returns": returns,
        "return": mean_interval(returns).to_json(),
        "loop": config["loop"],
        "faults": config["faults"],
        "realtime": clock.summary(),
    }
    success = success_interval(sum(solved), len(solved)) if solved else None
    if success is not None:
        result["success"] = success.to_json()
    try:
        if not config["video"]:
            (output / VIDEO_FILE).unlink(missing_ok=True)  # it would show another episode than is told of
        write_json(output / CONTROL_FILE, result)
        plots.save(timeline(first.log, period_s, title), output / PLOT_FILE)
    except OSError as error:
        raise RunError(f"cannot write to {output}: {reason_of(error)}") from error
    console.print(f"return   {mean_interval(returns)}  (mean and 95 % interval of {len(returns)} episodes)")
    if success is not None:
        console.print(f"solved   {success.mean:.0%} [{success.low:.0%}, {success.high:.0%}]  (of the goals)")
    for line in _told(result["realtime"]):
        console.print(line)
    if says_where:
        console.print(f"written  {output / CONTROL_FILE} and {output / PLOT_FILE}")
    return result


def _check(subject: Subject) -> None:
    config = subject.config
    if not subject.has_planner:
        raise ConfigError(
            f"agent={config['agent']}: realtime=true is for planners; without one there is "
            "nothing to wait for"
        )
    if subject.is_oracle and subject.run is not None:
        raise ConfigError(
            "model=oracle with checkpoint=: in real time the simulator plans without a learned value; leave "
            "checkpoint= out"
        )


def _check_filmable(env: envs.TaskVectorEnv) -> None:
    env.reset()  # some can draw nothing before
    check_drawable(env)
    try:
        env.physics_states()
    except envs.EnvError as error:
        raise ConfigError(
            f"video=true: in real time pictures are drawn afterwards, from physics states, and {env.task} "
            "has none: give video=false"
        ) from error


def _film(env: envs.SyncTaskVectorEnv, seed: int, episode: RealtimeEpisode, video: ControlVideo) -> None:
    """Draw an episode from the physics states that were recorded."""
    task_env, lived = env.task_envs[0], episode.lived
    env.reset(seed=[seed])
    told = {each.step: each for each in episode.log.told}
    with video:
        for step, (state, total) in enumerate(
            zip(lived.physics_states, np.cumsum(lived.rewards), strict=False)
        ):
            frame = None
            if video.wants_frame:
                task_env.set_physics_state(state)
                frame = task_env.render()
            each = told.get(step)
            is_missed = each is not None and each.kind == "missed"
            video.add(
                frame,
                float(total),
                None if each is None else each.latency_s,
                fault="plan late: plays on" if is_missed else None,
            )


def _told(clock: dict[str, Any]) -> list[str]:
    """The clock's numbers for the terminal."""
    share, timing, late = clock["share"], clock["latency"], clock["tick_lateness_ms"]
    lines = [f"period   {clock['period_ms']:.1f} ms, {clock['num_steps']} steps"]
    if timing is not None:
        percentiles = ", ".join(f"{name[:-3]} {value:.1f} ms" for name, value in timing.items())
        lines.append(f"latency  {percentiles}  (from seen to told)")
    lines.append(
        f"commands {share['fresh']:.1%} of a plan made for their step, {share['earlier']:.1%} of one before, "
        f"{share['blind']:.1%} unseen, {share['missed']:.1%} missed (at most "
        f"{clock['longest_miss_steps']} in a row)"
    )
    lines.append(f"robot    its ticks were late by p50 {late['p50']:.1f} ms, p99 {late['p99']:.1f} ms")
    if clock["num_stalls"]:
        lines.append(f"stalls   {clock['num_stalls']} of the planner, as asked for")
    return lines
