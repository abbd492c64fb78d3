"""control, imagine, collect and demo: what they write is right and readable."""

import json
import re
import shlex
import shutil
from dataclasses import asdict
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import toy_tasks

import envs
from worldmodel.apps import control as control_module
from worldmodel.apps import demo as demo_module
from worldmodel.apps import load_agent
from worldmodel.apps.cli import main
from worldmodel.apps.config import compose_config
from worldmodel.apps.page import write_page
from worldmodel.apps.statistics import latency, mean_interval
from worldmodel.apps.trained import open_run

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
README = Path(__file__).parents[2] / "README.md"


def controlled(run_dir: Path, output: Path, *overrides: str) -> dict:
    arguments = [f"checkpoint={run_dir}", f"output={output}", "episodes=3", "video=false", *overrides]
    assert main(["control", *arguments]) == 0
    return json.loads((output / "control.json").read_text())


def test_control_writes_returns_latency_and_a_video(point_run, tmp_path, capsys):
    result = controlled(point_run, tmp_path, "video=true")
    assert len(result["returns"]) == 3
    interval = mean_interval(result["returns"])
    assert (result["return"]["mean"], result["return"]["low"]) == (interval.mean, interval.low)
    out = capsys.readouterr().out
    assert f"return   {interval}  (mean and 95 % interval of 3 episodes)" in out
    assert str(tmp_path / "control.mp4") in out  # on one line, however long
    assert (result["task"], result["agent"], result["planner"]["name"]) == (
        toy_tasks.POINT,
        "planner",
        "mppi",
    )
    video = iio.imread(tmp_path / "control.mp4")
    assert video.shape == (toy_tasks.POINT_STEPS, 480, 480, 3)
    assert iio.immeta(tmp_path / "control.mp4")["fps"] == pytest.approx(1 / toy_tasks.Point.dt)


def test_the_return_of_no_action_is_the_tasks_own(point_run, tmp_path, capsys):
    """Without a push the point drifts: played again by hand, from the same starts."""
    result = controlled(point_run, tmp_path, "agent=zero", "seed=100")
    env = envs.make_vec(toy_tasks.POINT, num_envs=1, seed=100)
    expected = []
    for seeds in (list(env.env_seeds), None, None):
        env.reset(seed=seeds)
        expected.append(sum(float(env.step(np.zeros((1, 1)))[1][0]) for _ in range(toy_tasks.POINT_STEPS)))
    env.close()
    assert result["returns"] == pytest.approx(expected, rel=1e-5)


def test_the_same_seed_controls_the_same(point_run, tmp_path, capsys):
    first = controlled(point_run, tmp_path / "1", "seed=5")
    assert controlled(point_run, tmp_path / "2", "seed=5")["returns"] == first["returns"]
    assert controlled(point_run, tmp_path / "3", "seed=6")["returns"] != first["returns"]


@pytest.mark.parametrize(
    ("overrides", "planner"),
    [
        (["agent=policy"], None),
        (["agent=random"], None),
        (["agent=colored"], None),
        (["planner=cem", "planner.horizon=2"], "cem"),
        (["planner=predictive_sampling", "planner.num_candidates=30"], "predictive_sampling"),
    ],
)
def test_every_agent_controls(point_run, tmp_path, capsys, overrides, planner):
    result = controlled(point_run, tmp_path, *overrides)
    assert (result["planner"] or {}).get("name") == planner
    assert np.isfinite(result["returns"]).all()
    assert not (tmp_path / "control.mp4").exists()


def test_one_episode_has_a_return_and_no_interval(point_run, tmp_path, capsys):
    result = controlled(point_run, tmp_path, "episodes=1", "agent=zero")
    assert (result["return"]["low"], result["return"]["high"]) == (None, None)
    assert f"return   {result['returns'][0]:.0f}  (" in capsys.readouterr().out


def test_control_of_different_agents_stands_side_by_side(point_run, tmp_path, capsys):
    run_dir = tmp_path / "run"
    shutil.copytree(point_run, run_dir)
    command = ["control", f"checkpoint={run_dir}", f"task={toy_tasks.POINT}", "episodes=1", "video=false"]
    for choice in ([], ["planner=cem"], ["agent=policy"]):
        assert main([*command, *choice]) == 0
    written = {path.parent.name: json.loads(path.read_text()) for path in run_dir.glob("*/control.json")}
    assert {name: (found["planner"] or {}).get("name") for name, found in written.items()} == {
        "control-mppi": "mppi",
        "control-cem": "cem",
        "control-policy": None,
    }


def test_no_video_of_an_earlier_command_is_left(point_run, tmp_path, capsys):
    controlled(point_run, tmp_path, "video=true", "episodes=1")
    assert (tmp_path / "control.mp4").exists()
    controlled(point_run, tmp_path, "agent=zero", "episodes=1")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["control.json"]


def test_warming_up_changes_nothing(point_run, tmp_path, capsys, monkeypatch):
    for agent in ("agent=planner", "agent=random"):
        returns = controlled(point_run, tmp_path, agent)["returns"]
        with monkeypatch.context() as cold:
            cold.setattr(control_module, "_warm_up", lambda *_: None)
            assert controlled(point_run, tmp_path, agent)["returns"] == returns


def test_decisions_are_measured_and_nothing_else(point_run, tmp_path, capsys, monkeypatch):
    """A clock that each look moves on by one second more: decision i takes 2 i + 1 seconds."""

    class Clock:
        looks, now = 0, 0.0

        def perf_counter(self) -> float:
            self.looks += 1
            self.now += self.looks
            return self.now

    monkeypatch.setattr(control_module, "time", Clock())
    result = controlled(point_run, tmp_path, "agent=zero", "episodes=1")
    seconds = [2.0 * (index + 1) for index in range(toy_tasks.POINT_STEPS)]
    expected = latency(seconds, toy_tasks.Point.dt)
    assert result["latency"]["p50_ms"] == expected.p50_ms == pytest.approx(21_000)
    assert result["latency"]["p99_ms"] == expected.p99_ms
    assert result["latency"]["max_ms"] == 40_000
    assert result["latency"]["control_period_ms"] == pytest.approx(50)
    assert result["latency"]["fraction_in_time"] == 0


def test_a_trained_run_is_opened_by_any_of_its_names(point_run):
    newest = point_run / "checkpoints" / "step_000000200"
    for path in (point_run, newest, str(point_run)):
        run = open_run(path)
        assert run.checkpoint.path == newest
        assert run.directory == point_run
        assert run.task == toy_tasks.POINT
    older = open_run(point_run / "checkpoints" / "step_000000100")
    assert older.directory == point_run
    assert open_run(point_run, task="Point-v0").task == toy_tasks.POINT  # another spelling of it


def test_imagine_writes_finite_errors_and_a_picture(point_run, tmp_path, capsys):
    arguments = [f"checkpoint={point_run}", f"output={tmp_path}", "episodes=3", "horizon=10", "every=5"]
    assert main(["imagine", *arguments]) == 0
    result = json.loads((tmp_path / "imagine.json").read_text())
    assert [row["steps"] for row in result["table"]] == [1, 2, 3, 5, 10]
    assert all(np.isfinite(value) for row in result["table"] for value in row.values())
    # Starts 0, 5 and 10 of three episodes of 20 steps.
    assert result["num_windows"] == 9
    assert result["readout_r2"] <= 1
    picture = iio.imread(tmp_path / "imagine.png")
    assert picture.shape[0] > 300
    assert picture.std() > 1
    assert str(tmp_path / "imagine.png") in capsys.readouterr().out


def test_imagine_cuts_its_horizon_to_the_longest_episode(point_run, tmp_path, capsys):
    command = ["imagine", f"checkpoint={point_run}", f"output={tmp_path}", "episodes=1", "horizon=21"]
    assert main([*command, "agent=random"]) == 0
    assert "horizon=21 is cut to 20" in capsys.readouterr().out
    assert json.loads((tmp_path / "imagine.json").read_text())["table"][-1]["steps"] == 20


@pytest.fixture(scope="module")
def demo_page(tmp_path_factory) -> Path:
    """A demo of the point, end to end; only the numbers are smaller."""
    run_dir = tmp_path_factory.mktemp("demo") / "run"
    smaller = {"train": toy_tasks.TINY_TRAINING, "imagine": ("horizon=10", "episodes=2")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            demo_module,
            "compose_config",
            lambda name, overrides: compose_config(name, [*overrides, *smaller.get(name, ())]),
        )
        assert main(["demo", f"task={toy_tasks.POINT}", f"run_dir={run_dir}", "episodes=2"]) == 0
        page = (run_dir / "index.html").read_bytes()
        # Once more: it goes on where it was, which is at the end.
        assert main(["demo", f"task={toy_tasks.POINT}", f"run_dir={run_dir}", "episodes=2"]) == 0
    assert len((run_dir / "index.html").read_bytes()) > len(page) / 2
    return run_dir / "index.html"


def test_the_page_holds_everything_itself(demo_page):
    page = demo_page.read_text()
    sources = re.findall(r"""(?:src|href)\s*=\s*["']?([^"'\s>]{0,30})""", page)
    assert len(sources) == 3
    assert [source.partition(";")[0] for source in sources] == [
        "data:video/mp4",
        "data:image/png",
        "data:image/png",
    ]
    without_data = re.sub(r"data:[a-z0-9/]+;base64,[A-Za-z0-9+/=]+", "", page)
    assert "http:" not in without_data
    assert "https:" not in without_data
    assert "url(" not in without_data
    assert "file:" not in without_data


def test_the_page_says_what_was_measured(demo_page):
    page = demo_page.read_text()
    for agent in ("control-planner", "control-policy", "control-zero", "control-random"):
        result = json.loads((demo_page.parent / agent / "control.json").read_text())
        assert f"<td>{result['return']['mean']:.0f}</td>" in page
    table = json.loads((demo_page.parent / "imagine" / "imagine.json").read_text())["table"]
    assert all(f"<td>{row['reward_error']:.3f}</td>" in page for row in table)
    assert "200</b>env steps" in page


def test_every_command_on_the_page_can_be_typed(demo_page):
    (listing,) = re.findall(r"<pre>(.*?)</pre>", demo_page.read_text(), re.S)
    commands = [shlex.split(line) for line in listing.splitlines()]
    assert [command[1] for command in commands] == ["train", *["control"] * 5, "imagine"]
    for program, verb, *overrides in commands:
        assert program == "worldmodel"
        compose_config(verb, overrides)
    outputs = [word for command in commands for word in command if word.startswith("output=")]
    assert len(outputs) == len(set(outputs)) == 5
    # What was trained is opened again only where its module is named.
    looks = [command for command in commands if command[1] != "train"]
    assert all(f"task={toy_tasks.POINT}" in command for command in looks)


def test_the_page_of_a_single_episode_claims_no_interval(tmp_path):
    for name in ("control-planner/control.mp4", "imagine/imagine.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"")
    control = {"return": mean_interval([853.0]).to_json(), "latency": asdict(latency([0.004], None))}
    config, imagined = {"task": "reacher-easy", "seed": 0}, {"readout_r2": 0.9, "table": []}
    page = write_page(tmp_path, config, {"planner": control}, imagined, tmp_path).read_text()
    assert "<td>853</td><td>-</td>" in page
    assert "[853, 853]" not in page


def python_blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", README.read_text(), re.S)


def test_the_readme_shows_python():
    assert len(python_blocks()) >= 2


@pytest.mark.parametrize("block", python_blocks(), ids=lambda block: block.splitlines()[0])
def test_python_in_the_readme_runs(block, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    if "runs/demo" in block:
        tiny = [*toy_tasks.TINY, "random_steps=100", "training.batch_size=8", "eval_episodes=1"]
        tiny += ["env.action_repeat=10", "env_steps=1000", "num_envs=1", "training.update_ratio=0.1"]
        assert main(["train", "task=cartpole-swingup", "run_dir=runs/demo", *tiny]) == 0
        assert load_agent("runs/demo").plan is None
        capsys.readouterr()
    exec(compile(block, "README.md", "exec"), {})
    assert re.search(r"\d", capsys.readouterr().out)
