"""`worldmodel serve` and its clients, end to end: trained models, the command line, signals."""

import json
import re
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import toy_tasks
from processes import end, start
from serving_peers import Echo, OpenpiClient, serving

import worldmodel
from worldmodel.apps.cli import main
from worldmodel.apps.config import compose_config
from worldmodel.apps.remote_agent import RemoteAgent
from worldmodel.apps.serving.access import TOKEN_VARIABLE, is_loopback
from worldmodel.apps.verbs import VERBS
from worldmodel.errors import ConfigError, RemoteError
from worldmodel.remote import Client

GUIDE = Path(__file__).parents[2] / "docs" / "serving.md"
TOKEN = "correct-horse-battery-staple"
STATE = {"state": np.zeros(3, np.float32)}


class Served:
    """A server in a process of its own."""

    def __init__(self, *arguments: str) -> None:
        self.process = start("serve", "port=0", *arguments)
        line = self.process.stdout.readline()
        assert line.startswith("serving ws://127.0.0.1:"), (line, self.process.stderr.read())
        self.uri = line.split()[1]

    def stop(self, number: int = signal.SIGTERM):
        self.process.send_signal(number)
        return end(self.process)


@pytest.fixture(scope="module")
def point_server(point_run):
    server = Served(f"checkpoint={point_run}", f"task={toy_tasks.POINT}")
    yield server
    ended = server.stop()
    assert ended.code == 0, ended.err


def test_a_trained_run_is_served_as_it_describes_itself(point_server):
    with OpenpiClient(point_server.uri) as client:
        told = client.metadata
        assert told["task"] == toy_tasks.POINT
        assert all(f"`{key}`" in GUIDE.read_text() for key in told)
        assert told["observation"] == {"state": {"shape": [2], "dtype": "float32"}}
        assert (told["action_dim"], told["action_repeat"], told["control_period_s"]) == (1, 1, 0.05)
        assert (told["takes_goal"], told["planner"]) == (False, "mppi")
        json.dumps(told)  # plain values
        plans = [client.infer({"state": np.array([x, 0], np.float32)})["actions"] for x in (-1, 0, 1)]
    assert {plan.shape for plan in plans} == {(told["horizon"], 1)}
    assert np.abs(plans).max() <= 1
    assert np.ptp([plan[0, 0] for plan in plans]) > 0


def test_control_asks_a_server_as_it_would_ask_the_run(point_server, tmp_path, capsys):
    output = tmp_path / "control"
    command = ["control", f"server={point_server.uri}", f"task={toy_tasks.POINT}", "episodes=2"]
    assert main([*command, f"output={output}"]) == 0
    result = json.loads((output / "control.json").read_text())
    assert (result["model"], result["checkpoint"], result["planner"]) == (point_server.uri, None, None)
    assert result["latency"]["control_period_ms"] == 50
    assert np.isfinite(result["returns"]).all()
    assert (output / "control.mp4").stat().st_size > 1000
    assert "decision p50" in capsys.readouterr().out


def python_blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.S)


def test_the_guide_shows_our_client_and_one_without_this_project():
    ours, bare = python_blocks()
    assert "worldmodel.Client" in ours
    assert "worldmodel" not in bare


@pytest.mark.parametrize("block", python_blocks(), ids=["ours", "bare"])
def test_python_of_the_guide_runs(point_server, block, capsys):
    assert "ws://127.0.0.1:8000" in block
    exec(compile(block.replace("ws://127.0.0.1:8000", point_server.uri), "serving.md", "exec"), {})
    assert re.search(r"\d \[-?\d|^\[-?\d", capsys.readouterr().out, re.M)  # an action


def test_commands_of_the_guide_compose():
    lines = re.findall(r"^worldmodel ([^#\n]*)", GUIDE.read_text(), re.M)
    assert len(lines) >= 3
    for words in map(shlex.split, lines):
        verb = next(verb for verb in VERBS if words[: len(verb.split())] == verb.split())
        compose_config(verb.replace(" ", "_"), words[len(verb.split()) :])


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["task=cartpole-swingup"], ["task=cartpole-swingup, but ws://", "leave out task="]),
        (["checkpoint=runs/x"], ["checkpoint= is the server's to choose"]),
        (["model=oracle"], ["model= is the server's to choose"]),
        (["planner=cem"], ["planner= is the server's to choose"]),
        (["agent=random"], ["agent=random: the server plans"]),
        (["disagreement_weight=1"], ["disagreement_weight= is the server's to choose"]),
        (["alarm=stop"], ["alarm=stop needs a trained model"]),
        (["goal=[0.3]"], ["goal= needs the model here"]),
        (["realtime=true"], ["realtime= needs the model here"]),
    ],
)
def test_what_the_server_decides_is_not_asked_for(point_server, refused, arguments, parts):
    found = refused("control", f"server={point_server.uri}", *arguments)
    assert all(part in found for part in parts)


def test_a_server_that_is_no_worldmodel_serve_or_none_at_all_is_told(refused):
    with serving(Echo()) as server:
        assert "is no `worldmodel serve`" in refused("control", f"server={server.uri}")
    assert "write ws://HOST:PORT" in refused("control", "server=localhost")


def test_a_server_cannot_make_a_robot_import_a_module(refused):
    metadata = {"task": "os_of_somebody:Point-v0", "env": {}}
    with serving(Echo(), metadata=metadata) as server:
        assert "whose module is imported; give task=os_of_somebody" in refused(
            "control", f"server={server.uri}"
        )


def test_signals_end_a_server_politely_and_its_log_is_json(point_run):
    server = Served(f"checkpoint={point_run}", f"task={toy_tasks.POINT}", "log=info")
    with Client(server.uri) as client:
        client.act({"state": np.zeros(2)})
        with pytest.raises(RemoteError, match=r"state has shape \(3,\)"):
            client.act(STATE)
        client.act({"state": np.zeros(2)})
        ended = server.stop(signal.SIGINT)
        assert client._connection.recv_events_thread.join(5) is None
        assert client._connection.close_code == 1001
    assert (ended.code, "Traceback" in ended.err) == (0, False)
    events = [json.loads(line) for line in ended.err.splitlines()]
    assert [event["event"] for event in events] == [
        "opened", "refused", "closed", "opened", "closed", "stopped",
    ]  # fmt: skip
    assert events[1]["message"] == "state has shape (3,): this model takes (2,)"
    assert (events[2]["requests"], events[4]["requests"]) == (1, 1)
    assert events[4]["ended"] == "1001 the server is shutting down"


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["host=0.0.0.0"], ["host=0.0.0.0 is reached from other machines", TOKEN_VARIABLE, "token_file="]),
        (["host=example"], ["host=example is reached from other machines"]),
        (["token_file=none"], ["cannot read token_file=none: No such file"]),
        (["token_file={short}"], ["at least 16 ASCII characters", "openssl rand"]),
        (["port=70000"], ["port=70000: must be at most 65535"]),
        (["port=-1"], ["port=-1: must be at least 0"]),
        (["port={taken}"], ["cannot listen at host=127.0.0.1 port=", "choose another port="]),
        (["disagreement_weight=1"], ["disagreement_weight=1.0: this model has one predictor"]),
        (["max_batch=0"], ["max_batch=0: must be at least 1"]),
        (["batch_window_ms=-1"], ["batch_window_ms=-1"]),
        (["limits.idle_s=0"], ["limits.idle_s=0.0: must be above 0"]),
        (["limits.connections=0"], ["limits.connections=0: must be above 0"]),
        (["log=verbose"], ["log=verbose: there is no such level", "debug, info, warning, error"]),
        (["state_weight=2"], ["state_weight=2", "plans for rewards"]),
        (["planner.horizn=3"], ["planner.horizon"]),
        (["task=cartpole-swingup"], ["but", "was trained on"]),
    ],
    ids=lambda value: value[0][:24],
)
def test_a_mistake_is_told_before_anybody_is_let_in(point_run, refused, tmp_path, arguments, parts):
    (tmp_path / "short").write_text("secret\n")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        words = [word.format(short=tmp_path / "short", taken=taken.getsockname()[1]) for word in arguments]
        given = [] if words[0].startswith("task=") else [f"task={toy_tasks.POINT}"]
        found = refused("serve", f"checkpoint={point_run}", *given, *words)
    assert all(part in found for part in parts), found


def test_a_missing_package_is_named(refused, point_run, monkeypatch):
    monkeypatch.setattr("worldmodel.apps.serving.find_spec", lambda name: None if name == "msgpack" else name)
    for verb in (["serve", f"checkpoint={point_run}"], ["control", "server=ws://127.0.0.1:1"]):
        assert "needs msgpack: pip install 'worldmodel[serve]'" in refused(*verb)


def test_the_token_comes_from_the_environment_or_a_file(point_run, tmp_path, monkeypatch):
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    server = Served(f"checkpoint={point_run}", f"task={toy_tasks.POINT}", f"token_file={tmp_path}/token")
    with pytest.raises(RemoteError, match="HTTP 401"):
        Client(server.uri)
    with OpenpiClient(server.uri, api_key=TOKEN) as client:
        assert client.metadata["action_dim"] == 1
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)
    command = ["control", f"server={server.uri}", f"task={toy_tasks.POINT}", "episodes=1", "video=false"]
    assert main([*command, f"output={tmp_path}"]) == 0
    ended = server.stop()
    assert ended.code == 0
    assert TOKEN not in ended.err


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("127.1.2.3", True), ("::1", True), ("localhost", True), ("0.0.0.0", False),
     ("::", False), ("", False), ("192.168.0.2", False), ("localhost.example", False)],
)  # fmt: skip
def test_what_only_this_machine_reaches(host, expected):
    assert is_loopback(host) is expected


def test_the_client_comes_with_the_package_and_without_torch():
    code = (
        "import sys, worldmodel\nassert 'websockets' not in sys.modules\nworldmodel.Client\n"
        "print(*({'torch', 'mujoco', 'gymnasium', 'hydra'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == ""
    assert worldmodel.Client is Client


def test_a_client_whose_packages_are_missing_says_so():
    code = "import sys\nsys.modules['msgpack'] = None\nimport worldmodel\nworldmodel.Client"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "worldmodel.Client needs msgpack: pip install 'worldmodel[serve]'" in ran.stderr


def test_a_client_whose_connection_is_lost_connects_again_with_its_goal():
    goals = []

    class Goals(Echo):
        def act(self, sessions, observation, deadline=None):
            goals.append(sessions[0].goal["state"].tolist())
            return super().act(sessions, observation, deadline)

    with serving(Goals(), takes_goal=True) as server, Client(server.uri) as client:
        client.reset({"state": np.array([1, 2, 3])})
        assert [client.act(STATE)[0, 1] for _ in range(2)] == [1, 2]
        client._connection.socket.shutdown(socket.SHUT_RDWR)
        assert [client.act(STATE)[0, 1] for _ in range(2)] == [1, 2]  # of a new session
    assert goals == [[1, 2, 3]] * 4


def test_a_client_waits_for_a_server_for_a_while_and_then_says_so():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(RemoteError, match="cannot be reached: Connection refused"):
        Client(f"ws://127.0.0.1:{port}", patience_s=0.2)


def test_a_client_does_not_wait_for_an_answer_for_ever():
    echo = Echo()
    with serving(echo) as server, Client(server.uri, timeout_s=0.3) as client:
        echo.may_go_on.clear()
        with pytest.raises(RemoteError, match=r"gave no answer within 0\.3 s"):
            client.act(STATE)
        echo.may_go_on.set()
        assert client.act({"state": np.array([5, 0, 0])})[0].tolist() == [5, 1]  # not the late answer


def test_a_remote_agent_sends_the_episodes_goal_and_acts_in_one_environment():
    drawn = iter([{"state": np.full((1, 3), 7.0)}, {"state": np.full((1, 3), 8.0)}])
    goals = []

    class Goals(Echo):
        def act(self, sessions, observation, deadline=None):
            goals.append(sessions[0].goal["state"][0])
            return super().act(sessions, observation, deadline)

    with serving(Goals(), takes_goal=True) as server, Client(server.uri) as client:
        agent = RemoteAgent(client, lambda: next(drawn))
        seen = {"state": np.zeros((1, 3), np.float32)}
        assert agent.act(seen).action.shape == (1, 2)
        agent.act(seen)
        agent.reset(np.array([False]))
        agent.act(seen)
        agent.reset()
        agent.act(seen)
        with pytest.raises(ConfigError, match="one environment"):
            agent.act({"state": np.zeros((2, 3), np.float32)})
    assert goals == [7, 7, 7, 8]
