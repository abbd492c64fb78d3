"""bench learning: mistakes are told at once, stopping saves, and a report says what its numbers come from.

Where no training is needed, the processes run `STAND_IN` in place of worldmodel.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import toy_tasks

from worldmodel.apps import bench_learning as bench_module
from worldmodel.apps import provenance
from worldmodel.apps.bench_learning import Cell, bench_learning
from worldmodel.apps.cli import main
from worldmodel.apps.config import compose_config
from worldmodel.apps.report import preset_dir
from worldmodel.errors import RunError

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

STAND_IN = """
import json, pathlib, signal, sys, time
verb, *overrides = sys.argv[1:]
given = {key: value.strip("'") for key, _, value in (word.partition("=") for word in overrides)}
if verb == "control":
    output = pathlib.Path(given["output"])
    output.mkdir()
    content = {"return": {"mean": 1.0}, "returns": [1.0], "seed": 100}
    content["latency"] = {"p50_ms": 1, "p95_ms": 1, "p99_ms": 1, "control_period_ms": None}
    (output / "control.json").write_text(json.dumps(content))
    sys.exit()
run_dir = pathlib.Path(given["run_dir"])
run_dir.mkdir(parents=True, exist_ok=True)
if given.get("seed") == "7":
    while not list(run_dir.parent.glob("seed-*/begun")):
        time.sleep(0.01)
    sys.exit("seed 7 brings bad luck")
(run_dir / "config.json").write_text("{}")
value = 5.0 + float(given.get("exploration_std", 0)) + int(given.get("seed", 0))
lines = [{"env_steps": steps, "eval/return": value * steps / 25_000} for steps in (25_000, 50_000)]
(run_dir / "metrics.jsonl").write_text("\\n".join(map(json.dumps, lines)))
if given.get("seed") == "8":
    def save(*_):
        (run_dir / "saved").touch()
        sys.exit(130)
    signal.signal(signal.SIGTERM, save)
    (run_dir / "begun").touch()
    time.sleep(60)
"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch) -> None:
    package = tmp_path / "stand-in" / "worldmodel"
    (package / "apps").mkdir(parents=True)
    for folder in (package, package / "apps"):
        (folder / "__init__.py").touch()  # else the installed one is preferred
    (package / "apps" / "child.py").write_text(STAND_IN)
    monkeypatch.chdir(package.parent)  # `python -m` looks there first


def settings(output: Path, **changes) -> dict:
    config = {
        "tasks": ["reacher-easy"],
        "seeds": [0],
        "presets": ["demo"],
        "episodes": 1,
        "num_workers": 0,
        "launcher": "local",
        "ray_address": None,
        "output": str(output),
        "reference": None,
        "report": False,
    }
    return config | changes


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["tasks=[reacher-easy,walker-wlak]"], ["'walker-wlak'", "did you mean walker-walk"]),
        (["tasks=[1]"], ["tasks=[1]: each must be a task's name"]),
        (["tasks=[]"], ["tasks=[]: must name at least one"]),
        (["tasks=[reacher-easy,reacher-easy]"], ["each must be named once"]),
        (["seeds=[a]"], ["seeds=[a]: each must be a whole number"]),
        (["seeds=[-1]"], ["seeds=[-1]: each must be a whole number, at least 0"]),
        (["seeds=[true]"], ["seeds=[True]"]),
        (["seeds=[0,0]"], ["each must be named once"]),
        (["seeds=[]"], ["seeds=[]: must name at least one"]),
        (["num_workers=-1"], ["num_workers=-1: must be at least 0"]),
        (["episodes=0"], ["episodes=0: must be at least 1"]),
        (["presets=[dmeo]"], ["no experiment 'dmeo'", "did you mean demo"]),
        (["presets=['demo env_stpes=9']"], ["'env_stpes'", "did you mean env_steps"]),
        (["presets=['']"], ["each must name an experiment"]),
        (["presets=[demo,demo]"], ["each must be named once"]),
        (["reference=no/such/folder"], ["reference=no/such/folder: there is no such folder"]),
        (["report=true"], ["holds no runs of cartpole-swingup"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_a_mistake_is_told_before_anything_runs(stand_in, tmp_path, refused, overrides, expected):
    line = refused("bench", "learning", f"output={tmp_path / 'out'}", *overrides)
    for part in expected:
        assert part in line
    assert not (tmp_path / "out").exists()


def test_an_output_that_cannot_be_written(stand_in, tmp_path, refused):
    (tmp_path / "file").write_text("")
    output = tmp_path / "file" / "x"
    assert f"cannot write output={output}: Not a directory" in refused(
        "bench", "learning", "tasks=[reacher-easy]", f"output={output}"
    )


@pytest.mark.parametrize("is_new", [True, False])
def test_every_command_can_be_typed_and_names_the_task(tmp_path, is_new):
    cell = Cell(
        task="my_module:Id-v0", seed=3, preset="demo env_steps=9", directory=tmp_path / "a, b=c" / "seed-3"
    )
    if not is_new:
        cell.directory.mkdir(parents=True)
        (cell.directory / "config.json").write_text("{}")
    commands = cell.commands(5)
    assert [verb for verb, *_ in commands] == ["train", *["control"] * 4]
    for verb, *overrides in commands:
        config = compose_config(verb, overrides)
        assert config["task"] == "my_module:Id-v0"
        assert config["run_dir" if verb == "train" else "checkpoint"] == str(cell.directory)


def test_a_finished_run_is_not_repeated(stand_in, tmp_path):
    config = settings(tmp_path / "out", seeds=[0, 1])
    report = bench_learning(config)
    record = tmp_path / "out" / "demo" / "reacher-easy" / "seed-0.provenance.json"
    before = record.read_bytes()
    (tmp_path / "stand-in" / "worldmodel" / "apps" / "child.py").write_text("raise SystemExit('ran again')")
    assert bench_learning(config) == report
    assert record.read_bytes() == before


def test_one_failure_stops_and_saves_the_others(stand_in, tmp_path):
    began = time.monotonic()
    with pytest.raises(RunError, match="seed 7 brings bad luck"):
        bench_learning(settings(tmp_path, seeds=[7, 8, 9], num_workers=2))
    assert time.monotonic() - began < 30
    assert (tmp_path / "demo" / "reacher-easy" / "seed-8" / "saved").exists()
    assert not (tmp_path / "demo" / "reacher-easy" / "seed-9").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_signal_stops_and_saves_all(stand_in, tmp_path, number):
    # The bench is the real one, its children find the stand-in.
    code = "import sys; sys.path.pop(0); from worldmodel.apps.cli import main; sys.exit(main(sys.argv[1:]))"
    arguments = [
        "bench",
        "learning",
        "tasks=[reacher-easy]",
        "seeds=[8]",
        "presets=[demo]",
        f"output={tmp_path / 'out'}",
    ]
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], stderr=subprocess.PIPE, text=True)
    run_dir = tmp_path / "out" / "demo" / "reacher-easy" / "seed-8"
    deadline = time.monotonic() + 60
    while not (run_dir / "begun").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (130, "")
    assert (run_dir / "saved").exists()


def test_as_many_workers_as_cores_are_allowed(stand_in, tmp_path, monkeypatch):
    asked = []

    class Pool(bench_module.ThreadPoolExecutor):
        def __init__(self, max_workers):
            asked.append(max_workers)
            super().__init__(max_workers)

    monkeypatch.setattr(bench_module, "ThreadPoolExecutor", Pool)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {5}, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    bench_learning(settings(tmp_path))
    assert asked == [1]


def test_the_report_says_what_the_runs_were_made_with(stand_in, tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "commit", lambda: "first")
    monkeypatch.setattr(provenance, "processor", lambda: "Abacus")
    bench_learning(settings(tmp_path, seeds=[0, 1]))
    record = json.loads((tmp_path / "demo" / "reacher-easy" / "seed-1.provenance.json").read_text())
    assert record["preset"] == "demo"
    (start,) = record["starts"]
    assert (start["commit"], start["processor"]) == ("first", "Abacus")
    assert start.keys() == {"commit", "processor", "cores", "python", "packages", "command"}
    assert start["command"].startswith("worldmodel train ")
    monkeypatch.setattr(provenance, "commit", lambda: "second")
    monkeypatch.setattr(provenance, "processor", lambda: "Pencil")
    report = bench_learning(settings(tmp_path, seeds=[0, 1], report=True)).read_text()
    assert "Commit: first." in report
    assert "Hardware: Abacus, " in report
    assert "Commit: second" not in report
    report = bench_learning(settings(tmp_path, seeds=[2])).read_text()
    assert "Commit: first (2 runs), second (1 run)." in report
    assert "seeds 0, 1, 2." in report
    assert [line.split(",")[0] for line in report.splitlines() if line.startswith("Hardware")] == [
        "Hardware: Abacus",
        "Hardware: Pencil",
    ]


def test_presets_stand_beside_each_other_and_what_is_published(stand_in, tmp_path):
    published = tmp_path / "published" / "theirs" / "reacher-easy.csv"
    published.parent.mkdir(parents=True)
    published.write_text("step,reward,seed\n100000,30,1\n100000,50,2\n")
    output, changed = tmp_path / "out", "demo exploration_std=2"
    config = settings(output, presets=["demo", changed], seeds=[0, 2], reference=str(published.parents[1]))
    report = bench_learning(config).read_text()
    rows = [
        line.strip("| ").split(" | ") for line in report.splitlines() if line.startswith("| reacher-easy")
    ]
    assert rows[:2] == [
        ["reacher-easy", "demo", "2", "6 [-7, 19]", "12 [-13, 37]", "-", "40"],
        ["reacher-easy", changed, "2", "8 [-5, 21]", "16 [-9, 41]", "-", "40"],
    ]
    assert (output / "demo-exploration_std=2" / "reacher-easy" / "seed-2" / "config.json").exists()
    assert f"""'presets=[demo,"{changed}"]'""" in report
    assert (output / "curves.png").stat().st_size > 10_000
    curves = (output / "curves.csv").read_text().splitlines()
    assert len(curves) == 1 + 2 * 2 * 2  # presets, seeds, evaluations


def test_a_preset_of_many_changes_has_a_folder_of_its_own(tmp_path):
    long = "tiny " + " ".join(f"training.setting_{number}={number}" for number in range(30))
    one, other = preset_dir(tmp_path, f"{long} seed=1"), preset_dir(tmp_path, f"{long} seed=2")
    assert one != other
    one.mkdir()  # short enough for a file system


def test_a_run_that_goes_on_says_both_commits(stand_in, tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "commit", lambda: "first")
    bench_learning(settings(tmp_path))
    shutil.rmtree(tmp_path / "demo" / "reacher-easy" / "seed-0" / "control-zero")
    monkeypatch.setattr(provenance, "commit", lambda: "second")
    assert "Commit: first (1 run), second (1 run)." in bench_learning(settings(tmp_path)).read_text()


@pytest.mark.parametrize("report", [True, False])
def test_an_output_of_another_experiment(stand_in, tmp_path, report):
    bench_learning(settings(tmp_path))
    record = tmp_path / "demo" / "reacher-easy" / "seed-0.provenance.json"
    record.write_text(record.read_text().replace('"demo"', '"long"'))
    with pytest.raises(RunError, match="seed-0 was trained as 'long', not as 'demo'"):
        bench_learning(settings(tmp_path, seeds=[1], report=report))
    assert not (tmp_path / "demo" / "reacher-easy" / "seed-1").exists()


@pytest.mark.slow
def test_an_older_run_goes_on_and_is_reported(point_run, tmp_path, capsys):
    """Without a record, with a task whose module must be named."""
    run_dir = tmp_path / "demo" / toy_tasks.POINT / "seed-0"
    shutil.copytree(point_run, run_dir)
    arguments = [
        f"tasks=['{toy_tasks.POINT}']",
        "seeds=[0]",
        "presets=[demo]",
        "episodes=1",
        f"output={tmp_path}",
    ]
    assert main(["bench", "learning", *arguments, "report=true"]) == 0
    report = (tmp_path / "report.md").read_text()
    assert "Commit: unknown commit." in report
    assert "Hardware: unknown hardware." in report
    assert main(["bench", "learning", *arguments]) == 0
    assert sorted(path.parent.name for path in run_dir.glob("*/control.json")) == [
        "control-planner",
        "control-policy",
        "control-random",
        "control-zero",
    ]
    report = (tmp_path / "report.md").read_text()
    assert f"{provenance.commit()} (1 run)" in report
    assert "unknown commit (1 run)" in report


def repository(path: Path, project: str) -> Path:
    """A git repository with one commit; returns a source file in it."""
    source = path / "worldmodel" / "source.py"
    source.parent.mkdir(parents=True)
    source.write_text("")
    (path / "pyproject.toml").write_text(f'[project]\nname = "{project}"\n')
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", *identity, *arguments], cwd=path, check=True)
    return source


def test_the_commit_is_that_of_our_own_repository(tmp_path):
    source = repository(tmp_path / "ours", "worldmodel")
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=source.parent, capture_output=True, text=True, check=True
    ).stdout
    assert head.startswith(provenance.commit(source))
    source.write_text("changed")
    assert provenance.commit(source).endswith("-dirty")


def test_the_commit_of_another_repository_is_not_ours(tmp_path):
    version = f"version {provenance.version('worldmodel')}"
    assert provenance.commit(repository(tmp_path / "theirs", "robot")) == version
    installed = repository(tmp_path / "ours", "worldmodel").parents[1] / "installed.py"
    installed.write_text("")
    assert provenance.commit(installed) == version
    assert provenance.commit(tmp_path / "nowhere.py") == version


def test_a_damaged_record_is_named(stand_in, tmp_path):
    bench_learning(settings(tmp_path))
    (tmp_path / "demo" / "reacher-easy" / "seed-0.provenance.json").write_text("{")
    with pytest.raises(RunError, match=r"cannot read .*seed-0\.provenance\.json"):
        bench_learning(settings(tmp_path, report=True))
