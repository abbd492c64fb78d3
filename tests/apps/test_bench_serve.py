"""bench serve: every request is counted, and what goes wrong is told, not averaged away."""

import asyncio
import csv
import json
from contextlib import nullcontext

import numpy as np
import pytest
from serving_peers import HORIZON, Echo, serving

from worldmodel.apps.bench import serve as bench
from worldmodel.apps.bench.serve_report import _busy
from worldmodel.apps.cli import main

METADATA = {
    "task": "echo", "horizon": HORIZON, "action_dim": 2, "takes_goal": True,
    "observation": {"state": {"shape": [3], "dtype": "float32"}},
}  # fmt: skip


def ask(server, num_clients: int, seconds: float = 0.3):
    return asyncio.run(bench._ask_together(server.uri, num_clients, seconds, 0))


@pytest.fixture
def echo_server():
    with serving(Echo(), metadata=METADATA, takes_goal=True, window_s=0.01) as server:
        yield server


def test_clients_ask_together_and_every_answer_is_counted(echo_server):
    before = bench._totals(echo_server.uri)
    told = ask(echo_server, 4)
    after = bench._totals(echo_server.uri)
    count = sum(len(one.seconds) for one in told)
    assert len(told) == 4
    assert min(len(one.seconds) for one in told) >= 1
    assert after["decided"] - before["decided"] == count
    assert after["decisions"] - before["decisions"] < count  # some shared a decision
    assert [(one.num_lost, one.num_wrong) for one in told] == [(0, 0)] * 4
    assert all(0 < seconds < 10 for one in told for seconds in one.seconds)


def test_an_answer_of_another_shape_is_wrong():
    with serving(Echo(), metadata=METADATA | {"horizon": HORIZON + 1}, takes_goal=True) as server:
        (told,) = ask(server, 1)
    assert told.num_wrong == len(told.seconds) > 0


def test_who_is_refused_has_lost_a_request():
    with serving(Echo(), metadata=METADATA, takes_goal=True, requests_per_s=5.0) as server:
        (told,) = ask(server, 1, seconds=30.0)
    assert (told.num_lost, told.num_wrong, len(told.seconds)) == (1, 0, 5)


def test_goals_and_images_are_asked_with_where_the_server_wants_them():
    entries = {"state": {"shape": [3]}, "pixels": {"shape": [3, 8, 8]}}
    drawn = bench._observations({"observation": entries, "takes_goal": True}, seed=0)[0]
    assert set(drawn) == {"state", "pixels", "goal/state", "goal/pixels"}
    assert (drawn["pixels"].dtype, drawn["goal/pixels"].shape) == (np.uint8, (3, 8, 8))


def test_the_report_has_a_row_for_each_number_of_clients(tmp_path, monkeypatch):
    with serving(Echo(), metadata=METADATA, takes_goal=True) as server:
        monkeypatch.setattr(bench, "_served", lambda config: nullcontext(server.uri))
        words = ["seconds=0.2", "warmup_s=0.05", "clients=[1,3]", f"output={tmp_path}"]
        assert main(["bench", "serve", *words]) == 0
    with (tmp_path / "serve.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["clients"] for row in rows] == ["1", "3"]
    for row in rows:
        assert float(row["p50_ms"]) <= float(row["p99_ms"]) <= float(row["max_ms"])
        assert (row["lost"], row["wrong"]) == ("0", "0")
        assert 1 <= float(row["mean_batch"]) <= int(row["clients"])
        assert int(row["fewest_of_a_client"]) >= 1
    text = (tmp_path / "serve.md").read_text()
    assert "0 were not answered, and 0 answered twice" in text
    assert json.loads((tmp_path / "serve.json").read_text())["config"]["clients"] == [1, 3]
    assert (tmp_path / "serve.png").stat().st_size > 5000


def test_a_busy_machine_is_told():
    assert _busy({"load_average_1_min": 0.4, "cores": 2}) == []
    assert "load average of 11 on 2 cores" in _busy({"load_average_1_min": 11.0, "cores": 2})[0]


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["clients=[]"], "clients=[]: must name at least one number"),
        (["clients=[0]"], "clients: 0 must be a whole number, at least 1"),
        (["seconds=0"], "seconds=0.0: must be above 0"),
        (["checkpoint=pretrained/cartpole"], "did you mean cartpole-swingup"),
    ],
)
def test_a_mistake_is_told_before_a_server_is_started(refused, arguments, part):
    assert part in refused("bench", "serve", *arguments)


def test_a_server_of_its_own_is_started_and_stopped(tmp_path):
    words = ["seconds=0.5", "warmup_s=0.1", "clients=[2]", f"output={tmp_path}", "planner.num_candidates=32"]
    assert main(["bench", "serve", *words]) == 0
    (row,) = csv.DictReader((tmp_path / "serve.csv").open())
    assert float(row["cpu_ms_per_request"]) > 0
    assert row["lost"] == "0"
