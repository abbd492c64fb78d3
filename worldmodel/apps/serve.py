"""A trained model as a server that robots ask for plans: `worldmodel serve`."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from time import perf_counter
from typing import Any

import numpy as np
import torch

from worldmodel.apps.build import build_env, build_planning_agent
from worldmodel.apps.config import at_most, not_negative, positive
from worldmodel.apps.goals import check_weights, foresight_of
from worldmodel.apps.progress import console
from worldmodel.apps.run import default_num_threads
from worldmodel.apps.serving import check_installed
from worldmodel.apps.serving.access import read_token
from worldmodel.apps.serving.batching import Batcher
from worldmodel.apps.serving.limits import Limits
from worldmodel.apps.serving.log import open_log
from worldmodel.apps.serving.request import RequestReader
from worldmodel.apps.sessions import Session, SessionAgent, SessionGoals
from worldmodel.apps.trained import TrainedRun, open_accelerated

_NUM_WARM_UP = 3  # decisions for each number of robots


def tell_on_console(uri: str) -> None:
    """Where the server is."""
    console.print(f"serving {uri}  (health: /healthz, numbers: /metrics; Ctrl-C stops)")


def serve(config: dict[str, Any], tell: Callable[[str], None] = tell_on_console) -> None:
    """Answer robots until Ctrl-C or SIGTERM; `tell` where, as soon as they may come.

    `config` is that of `configs/serve.yaml`.

    Errors: `ConfigError`, `CheckpointError` or `RunError` for a user's mistake, before anybody is let in.
    """
    check_installed("serve")
    from worldmodel.apps.serving.metrics import Metrics
    from worldmodel.apps.serving.running import serve_until_stopped
    from worldmodel.apps.serving.server import PolicyServer

    _check(config)
    limits, token = Limits.from_config(config["limits"]), read_token(config["host"], config["token_file"])
    log = open_log(config["log"])
    torch.set_num_threads(default_num_threads(config["num_threads"]))
    run = open_accelerated(config)
    assert run is not None
    run = replace(run, disagreement_weight=config["disagreement_weight"])
    reader, metrics = RequestReader.of(run.model), Metrics()
    agent = session_agent(run, config)
    metadata = describe(run, config, reader)
    plan_s = config["plan_ms"] / 1e3 or None
    _warm_up(agent, reader, config["max_batch"] if run.acceleration.is_compiled else 1, plan_s)
    batcher = Batcher(
        agent,
        expected=lambda: server.num_connections,
        max_batch=config["max_batch"],
        window_s=config["batch_window_ms"] / 1e3,
        plan_s=plan_s,
        watch=metrics.decided,
    )
    server = PolicyServer(batcher, reader, limits, metadata=metadata, token=token, metrics=metrics, log=log)
    with batcher:
        asyncio.run(serve_until_stopped(server, config["host"], config["port"], log=log, tell=tell))


def session_agent(run: TrainedRun, config: dict[str, Any]) -> SessionAgent:
    """Who decides: the run's planner, changed as `config` says."""
    goals = SessionGoals()
    foresight = foresight_of(run, goals, config)
    agent = build_planning_agent(foresight, run.planner_config(config.get("planner")), seed=config["seed"])
    return SessionAgent(agent, foresight, goals=goals, is_padded=run.acceleration.is_compiled)


def describe(run: TrainedRun, config: dict[str, Any], reader: RequestReader) -> dict[str, Any]:
    """What every robot is told first: plain values, as JSON has them."""
    planner = run.planner_config(config.get("planner"))
    env = build_env(run.task, run.config["env"], num_envs=1, seed=0)
    try:
        period_s, action_repeat = env.control_period_s, env.action_repeat
    finally:
        env.close()
    dtypes = {"state": "float32", "pixels": "uint8"}
    return {
        "server": f"worldmodel {version('worldmodel')}",
        "task": run.task,
        "observation": {
            key: {"shape": list(shape), "dtype": dtypes[key]} for key, shape in reader.shapes.items()
        },
        "action_dim": run.model.size.action_dim,
        "action_low": -1.0,
        "action_high": 1.0,
        "horizon": planner["horizon"],
        "control_period_s": period_s,
        "action_repeat": action_repeat,
        "takes_goal": reader.takes_goal,
        "planner": planner["name"],
        "env": run.config["env"],
    }


def _check(config: dict[str, Any]) -> None:
    positive(config, "max_batch", "num_threads")
    not_negative(config, "seed", "port", "batch_window_ms", "plan_ms")
    check_weights(config)
    at_most(config, "port", 65535)


def _warm_up(agent: SessionAgent, reader: RequestReader, largest: int, plan_s: float | None) -> None:
    """Decide unmeasured for every number of robots: the first calls allocate memory, or compile.

    With a deadline if there will be one: what it cuts short is compiled in pieces.
    """
    dtypes = {"state": np.float32, "pixels": np.uint8}
    nothing = {key: np.zeros(shape, dtypes[key]) for key, shape in reader.shapes.items()}
    size = 1
    while True:
        sessions = [Session(goal=nothing if reader.takes_goal else None) for _ in range(size)]
        for _ in range(_NUM_WARM_UP):
            deadline = None if plan_s is None else perf_counter() + plan_s
            agent.act(sessions, {key: np.stack([value] * size) for key, value in nothing.items()}, deadline)
        if size >= largest:
            break
        size *= 2
