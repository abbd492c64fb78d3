"""A trained model as a server that robots ask for plans: `worldmodel serve`."""

import asyncio
import ipaddress
import logging
import os
import signal
import time
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from worldmodel.apps.build import build_env, build_planning_agent
from worldmodel.apps.config import not_negative, positive
from worldmodel.apps.goals import GoalForesight
from worldmodel.apps.progress import console
from worldmodel.apps.run import default_num_threads
from worldmodel.apps.serving.batching import Batcher
from worldmodel.apps.serving.limits import Limits
from worldmodel.apps.serving.log import open_log
from worldmodel.apps.serving.request import RequestReader
from worldmodel.apps.sessions import Session, SessionAgent, SessionGoals
from worldmodel.apps.trained import TrainedRun, open_accelerated
from worldmodel.errors import ConfigError, RunError
from worldmodel.model import WorldModel

if TYPE_CHECKING:
    from worldmodel.apps.serving.server import PolicyServer

TOKEN_VARIABLE = "WORLDMODEL_TOKEN"
PACKAGES = ("msgpack", "websockets", "prometheus_client")
_LEAST_TOKEN_LENGTH = 16
_NUM_WARM_UP = 3  # decisions for each number of robots


def serve(config: dict[str, Any]) -> None:
    """Answer robots until Ctrl-C or SIGTERM; `config` is that of `configs/serve.yaml`.

    Errors: `ConfigError`, `CheckpointError` or `RunError` for a user's mistake, before anybody is let in.
    """
    check_installed("serve")
    from worldmodel.apps.serving.metrics import Metrics
    from worldmodel.apps.serving.server import PolicyServer

    _check(config)
    limits, token = Limits.from_config(config["limits"]), read_token(config)
    log = open_log(config["log"])
    torch.set_num_threads(default_num_threads(config["num_threads"]))
    run = open_accelerated(config)
    assert run is not None
    reader, metrics = RequestReader.of(run.model), Metrics()
    agent = session_agent(run, config)
    metadata = describe(run, config, reader)
    _warm_up(agent, reader, config["max_batch"] if run.acceleration.is_compiled else 1)
    batcher = Batcher(
        agent,
        expected=lambda: server.num_connections,
        max_batch=config["max_batch"],
        window_s=config["batch_window_ms"] / 1e3,
        plan_s=config["plan_ms"] / 1e3 or None,
        watch=metrics.decided,
    )
    server = PolicyServer(batcher, reader, limits, metadata=metadata, token=token, metrics=metrics, log=log)
    with batcher:
        asyncio.run(_until_stopped(server, config, log))


def check_installed(what: str) -> None:
    """Errors: `ConfigError` that names the packages that are missing."""
    if missing := [package for package in PACKAGES if find_spec(package) is None]:
        raise ConfigError(f"{what} needs {' and '.join(missing)}: pip install 'worldmodel[serve]'")


def read_token(config: dict[str, Any]) -> str | None:
    """What robots must know; None on this machine alone, where none is given.

    Errors: `ConfigError` for one that can be guessed, or where one is needed.
    """
    token, source = os.environ.get(TOKEN_VARIABLE), TOKEN_VARIABLE
    if config["token_file"] is not None:
        source = f"token_file={config['token_file']}"
        try:
            token = Path(config["token_file"]).read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot read {source}: {error}") from error
    if token is None:
        if is_loopback(config["host"]):
            return None
        raise ConfigError(
            f"host={config['host']} is reached from other machines: set {TOKEN_VARIABLE} in the environment, "
            "or give token_file=, so that not everybody can drive the robot (host=127.0.0.1 needs no token)"
        )
    token = token.strip()
    if len(token) < _LEAST_TOKEN_LENGTH or not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigError(
            f"{source}: a token is one word of at least {_LEAST_TOKEN_LENGTH} ASCII characters, such as what "
            "`openssl rand -hex 32` gives"
        )
    return token


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches it."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def session_agent(run: TrainedRun, config: dict[str, Any]) -> SessionAgent:
    """Who decides: the run's planner, changed as `config` says."""
    goals = SessionGoals()
    foresight = (
        run.foresight
        if isinstance(run.model, WorldModel)
        else GoalForesight(run.model, goals, acceleration=run.acceleration)
    )
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
    if config["port"] > 65535:
        raise ConfigError(f"port={config['port']}: must be at most 65535")


def _warm_up(agent: SessionAgent, reader: RequestReader, largest: int) -> None:
    """Decide unmeasured for every number of robots: the first calls allocate memory, or compile."""
    dtypes = {"state": np.float32, "pixels": np.uint8}
    nothing = {key: np.zeros(shape, dtypes[key]) for key, shape in reader.shapes.items()}
    size = 1
    while True:
        sessions = [Session(goal=nothing if reader.takes_goal else None) for _ in range(size)]
        for _ in range(_NUM_WARM_UP):
            agent.act(sessions, {key: np.stack([value] * size) for key, value in nothing.items()})
        if size >= largest:
            break
        size *= 2


async def _until_stopped(server: "PolicyServer", config: dict[str, Any], log: logging.Logger) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    try:
        listening = await server.start(config["host"], config["port"])
    except OSError as error:
        raise RunError(
            f"cannot listen at host={config['host']} port={config['port']}: {error.strerror or error}; "
            "choose another port="
        ) from error
    port = listening.sockets[0].getsockname()[1]
    host = f"[{config['host']}]" if ":" in config["host"] else config["host"]
    console.print(f"serving ws://{host}:{port}  (health: /healthz, numbers: /metrics; Ctrl-C stops)")
    await stopped.wait()
    began = time.perf_counter()
    await server.stop(listening)
    log.info("stopped", extra={"about": {"seconds": round(time.perf_counter() - began, 3)}})
