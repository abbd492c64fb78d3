"""bench sim: every contender makes the steps that are counted, and whoever cannot is told with the reason."""

import csv
import json

import numpy as np
import pytest
from live import needs_batch

from envs.live_physics import has_live_physics
from worldmodel.apps.bench import sim
from worldmodel.apps.bench.sim_contenders import CONTENDERS, Contender, build
from worldmodel.apps.cli import main

TASK, EPISODE_LENGTH = "cartpole-swingup", 1000
TINY = ["num_envs=[2,40]", "num_loop_envs=2", "warmup_steps=30", "seconds=0.01", "repeats=2"]
HERE = ["batch", "sync", "dm_control", "rollout"]  # those that need nothing but this project


def table(path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def actions(num_envs, num_calls=7):
    rng = np.random.default_rng(0)
    return rng.uniform(-1, 1, (num_calls, num_envs, 1)).astype(np.float32)


class Counter(Contender):
    """Its clock goes `pace` steps per call; it fails at call `fails_at`."""

    def __init__(self, num_envs, episode_length, *, pace=1, fails_at=None):
        super().__init__(actions(num_envs), episode_length)
        self.pace, self.fails_at = pace, fails_at
        self.seen, self.resets, self.played = np.zeros(num_envs), [], []

    def step(self, actions):
        if self.num_calls == self.fails_at:
            raise ArithmeticError("it broke\nin two")
        self.played.append(actions)
        self.seen += self.pace

    def reset(self, indices):
        self.resets += [(self.num_calls, index) for index in indices.tolist()]
        self.seen[indices] = 0

    def ages(self):
        return self.seen

    def close(self):
        pass


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    output = tmp_path_factory.mktemp("sim") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("worldmodel.apps.bench.turns.find_spec", lambda name: None)
        assert main(["bench", "sim", f"tasks=[{TASK},reacher_easy]", f"output={output}", *TINY]) == 0
    return output


def test_every_contender_of_every_task_is_a_row(measured):
    rows = table(measured / "sim.csv")
    assert {row["task"] for row in rows} == {TASK, "reacher-easy"}
    found = [(row["contender"], row["num_envs"]) for row in rows if row["task"] == TASK]
    sizes = {"sync": ["2"], "dm_control": ["1"]}
    default = [kind for kind in CONTENDERS if kind != "async"]
    assert found == [(kind, count) for kind in default for count in sizes.get(kind, ["2", "40"])]
    for row in rows:
        if row["contender"] == "envpool":
            assert row["status"] == "not installed: pip install envpool"
            assert row["steps"] == row["steps_per_core_s"] == row["steps_per_wall_s"] == ""
        elif row["contender"] == "batch" and not has_live_physics():
            assert "needs mujoco.batch" in row["status"]
        else:
            assert row["status"] == "ok"
            assert int(row["steps"]) % int(row["num_envs"]) == 0
            assert float(row["steps_per_core_s_q25"]) <= float(row["steps_per_core_s"])
            assert float(row["steps_per_wall_s"]) > 0


def test_rows_are_compared_with_those_they_belong_to(measured):
    rows = [row for row in table(measured / "sim.csv") if row["status"] == "ok"]
    rates = {(row["task"], row["contender"], row["num_envs"]): float(row["steps_per_core_s"]) for row in rows}
    for row in rows:
        rate = float(row["steps_per_core_s"])
        own = rates[row["task"], "dm_control", "1"]
        assert float(row["ratio_to_dm_control"]) == pytest.approx(rate / own, rel=1e-4)
        floor = rates.get((row["task"], "rollout", row["num_envs"]))
        if floor is None:
            assert row["share_of_rollout"] == ""
        else:
            assert float(row["share_of_rollout"]) == pytest.approx(rate / floor, rel=1e-4)


def test_the_page_tells_where_its_numbers_come_from(measured):
    page = (measured / "sim.md").read_text()
    record = json.loads((measured / "sim.json").read_text())
    for key in ("commit", "processor", "command"):
        assert record[key] in page
    assert "| EnvPool | 40 | - | - | - | - | not installed: pip install envpool |" in page
    assert "Resets are part of the work" in page
    assert (measured / "sim.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=needs_batch) if kind == "batch" else kind for kind in HERE]
)
def test_a_call_is_a_control_step_of_every_environment(kind):
    num_envs = 1 if kind == "dm_control" else 60
    contender = build(kind, TASK, actions(num_envs), seed=0, num_threads=2)
    try:
        for _ in range(3):
            contender()
        np.testing.assert_allclose(contender.ages(), np.full(num_envs, 3), atol=1e-6)
        num_calls = EPISODE_LENGTH + 5 if num_envs == 1 else 40
        for _ in range(num_calls - 3):
            contender()
        np.testing.assert_allclose(contender.ages(), contender.due_ages(), atol=1e-6)
        if kind == "rollout":  # it has no episodes
            assert set(contender.due_ages()) == {num_calls}
        else:
            assert min(contender.due_ages()) < num_calls
    finally:
        contender.close()


def test_envpool_makes_the_steps_too():
    pytest.importorskip("envpool")
    contender = build("envpool", TASK, actions(60), seed=0, num_threads=1)
    for _ in range(40):
        contender()
    np.testing.assert_allclose(contender.ages(), contender.due_ages())
    contender.close()


@pytest.mark.parametrize(("num_envs", "episode_length"), [(1, 4), (3, 10), (7, 7), (10, 4), (16, 5)])
def test_each_environment_starts_again_once_in_an_episode_length(num_envs, episode_length):
    contender = Counter(num_envs, episode_length)
    for _ in range(4 * episode_length):
        contender()
        np.testing.assert_array_equal(contender.ages(), contender.due_ages())
        assert contender.ages().max() <= episode_length
    for index in range(num_envs):
        calls = [call for call, who in contender.resets if who == index]
        assert len(calls) == 4
        assert set(np.diff(calls)) == {episode_length}
    per_call = [
        sum(call == each for call, _ in contender.resets) for each in range(1, 4 * episode_length + 1)
    ]
    assert max(per_call) - min(per_call) <= 1  # evenly spread


def test_prepared_actions_are_played_in_order():
    contender = Counter(2, None)
    for _ in range(9):
        contender()
    np.testing.assert_array_equal(contender.played, actions(2)[[*range(7), 0, 1]])
    assert contender.resets == []


def test_who_steps_otherwise_than_it_says_or_breaks_is_told(tmp_path, monkeypatch, capsys):
    fakes = {"batch": {"pace": 2}, "sync": {"fails_at": 31}, "dm_control": {"fails_at": 3}, "rollout": {}}

    def fake(kind, task, actions, **options):
        return Counter(actions.shape[1], 1000, **fakes[kind])

    monkeypatch.setattr(sim, "build", fake)
    names = f"contenders=[{','.join(fakes)}]"
    assert main(["bench", "sim", f"tasks=[{TASK}]", names, f"output={tmp_path}", *TINY]) == 0
    rows = table(tmp_path / "sim.csv")
    assert f"sync ({TASK}) failed: ArithmeticError: it broke in two" in capsys.readouterr().out
    statuses = {row["contender"]: row["status"] for row in rows}
    assert statuses["batch"].startswith("failed: RuntimeError: environment ")
    assert statuses["batch"].endswith(" is at step 60, not at 30")
    assert statuses["sync"] == statuses["dm_control"] == "failed: ArithmeticError: it broke in two"
    assert statuses["rollout"] == "ok"
    for row in rows:
        assert (row["steps_per_core_s"] == "") == (row["status"] != "ok")


def test_of_other_processes_only_wall_time_is_known(tmp_path):
    arguments = ["bench", "sim", f"tasks=[{TASK}]", "contenders=[async]", f"output={tmp_path}", *TINY]
    assert main([*arguments, "warmup_steps=3", "repeats=1"]) == 0
    (row,) = table(tmp_path / "sim.csv")
    assert row["status"] == "ok"
    assert row["steps_per_core_s"] == row["ratio_to_dm_control"] == ""
    assert float(row["steps_per_wall_s"]) > 0
    assert "only its wall time is known" in (tmp_path / "sim.md").read_text()


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["tasks=[cheetah-rn]"], ["cheetah-rn", "cheetah-run"]),
        (["tasks=[]"], ["tasks=[]: must name at least one"]),
        (["tasks=[cheetah-run,cheetah_run]"], ["cheetah-run must be named once"]),
        (["tasks=[quadruped-run]"], ["quadruped-run", "There are acrobot-swingup"]),
        (["contenders=[btach]"], ["there is no contender 'btach'", "did you mean batch"]),
        (["contenders=[]"], ["contenders=[]: must name at least one of batch"]),
        (["num_envs=[16,16]"], ["each must be named once"]),
        (["num_envs=[0]"], ["num_envs: 0 must be a whole number, at least 1"]),
        (["num_loop_envs=0"], ["num_loop_envs=0: must be at least 1"]),
        (["warmup_steps=0"], ["warmup_steps=0: must be at least 1"]),
        (["repeats=0"], ["repeats=0: must be at least 1"]),
        (["num_threads=0"], ["num_threads=0: must be at least 1"]),
        (["seconds=0"], ["seconds=0.0: must be more than 0"]),
        (["num_env=[1]"], ["no config key 'num_env'", "did you mean num_envs"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_a_mistake_is_one_line(tmp_path, refused, overrides, expected):
    line = refused("bench", "sim", f"output={tmp_path / 'out'}", *overrides)
    for part in expected:
        assert part in line
    assert not (tmp_path / "out").exists()


def test_an_output_that_cannot_be_written(tmp_path, refused):
    (tmp_path / "file").touch()
    assert "cannot write output=" in refused("bench", "sim", f"output={tmp_path / 'file' / 'x'}")
