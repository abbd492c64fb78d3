"""One model of several tasks, from recording to control by name."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from toy_tasks import PLANE, POINT, TINY

from worldmodel.apps import load_agent
from worldmodel.apps.cli import main
from worldmodel.apps.trained import open_run
from worldmodel.errors import CheckpointError
from worldmodel.training import find_checkpoint, load_checkpoint, read_metrics

NAMES = ["Point-v0", "Plane-v0"]


@pytest.fixture(scope="module")
def datasets(tmp_path_factory) -> str:
    """One of each task, as `datasets=` takes them."""
    folder = tmp_path_factory.mktemp("datasets")
    for name, task in (("point", POINT), ("plane", PLANE)):
        words = [
            f"task={task}",
            "env.action_repeat=1",
            "episodes=6",
            "num_envs=6",
            f"dataset={folder / name}",
        ]
        assert main(["collect", *words]) == 0
    return f"[{folder / 'point'},{folder / 'plane'}]"


def train(datasets: str, run_dir: Path, *overrides: str) -> int:
    words = [f"datasets={datasets}", f"tasks=[{POINT},{PLANE}]", "eval_episodes=2", f"run_dir={run_dir}"]
    return main(
        ["train", *words, "training.batch_size=8", "num_updates=4", "eval_every=2", *TINY, *overrides]
    )


@pytest.fixture(scope="module")
def run_dir(datasets, tmp_path_factory) -> Path:
    """A run of both tasks, trained for a moment; nobody may change it."""
    made = tmp_path_factory.mktemp("several") / "run"
    assert train(datasets, made) == 0
    return made


def test_each_task_is_evaluated_by_its_name(run_dir):
    records = [record for record in read_metrics(run_dir) if "eval/return" in record]
    assert [record["env_steps"] for record in records] == [2, 4]
    for record in records:
        each = [record[f"eval/return/{name}"] for name in NAMES]
        assert record["eval/return"] == pytest.approx(sum(each) / 2)
        assert each[0] != each[1]


def test_each_task_is_normalised_by_its_own_episodes(run_dir):
    encoder = load_checkpoint(run_dir).model.encoder
    assert [float(each.count) for each in encoder.normalizers] == [6 * 21, 6 * 21]
    assert [len(each.mean) for each in encoder.normalizers] == [2, 4]


@pytest.mark.parametrize(("task", "action_dim"), [(POINT, 1), (PLANE, 2)])
def test_each_task_is_controlled_by_its_name(run_dir, task, action_dim):
    words = ["episodes=1", "video=false", f"checkpoint={run_dir}", f"task={task}"]
    assert main(["control", *words]) == 0
    name = task.partition(":")[2]
    result = json.loads((run_dir / name / "control-mppi" / "control.json").read_text())
    assert result["task"] == task
    assert len(result["returns"]) == 1
    assert open_run(run_dir, task=task).model.size.action_dim == action_dim
    state = torch.zeros(3, 2 * action_dim).numpy()
    assert load_agent(run_dir, task=task).act({"state": state}).action.shape == (3, action_dim)


def test_one_task_is_named_and_one_that_it_learned(run_dir, refused):
    known = "Point-v0, Plane-v0"
    assert f"several tasks: name one with task=. They are {known}" in refused(
        "control", f"checkpoint={run_dir}"
    )
    told = refused("control", f"checkpoint={run_dir}", "task=Plain-v0")
    assert "task=Plain-v0" in told
    assert "(did you mean Plane-v0" in told
    assert f"They are {known}" in told
    for verb in ("imagine", "serve", "surprise", "probe"):
        further = ["dataset=none"] if verb == "probe" else []
        assert "name one with task=" in refused(verb, f"checkpoint={run_dir}", *further)
    for bench in ("goals", "serve", "realtime"):
        assert "name one with task=" in refused("bench", bench, f"checkpoint={run_dir}")


def test_a_file_does_not_get_a_module_imported(run_dir, monkeypatch):
    monkeypatch.setattr("worldmodel.apps.trained.would_import", lambda task: ":" in task)
    with pytest.raises(CheckpointError, match="give task=toy_tasks:Point-v0 to allow it"):
        open_run(run_dir, task="Point-v0")


def test_it_goes_on_to_the_bit(datasets, run_dir, tmp_path):
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    assert train(datasets, straight, "num_updates=6") == 0
    assert train(datasets, stopped, "num_updates=4") == 0
    assert main(["train", f"run_dir={stopped}", "resume=true", "num_updates=6"]) == 0
    for name in ("model.safetensors", "trainer.safetensors"):
        left, right = (load_file(find_checkpoint(path) / name) for path in (straight, stopped))
        assert left.keys() == right.keys()
        for key, value in left.items():
            assert torch.equal(value, right[key]), key


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["training.batch_size=7"], "training.batch_size=7: 2 tasks need equal shares; give"),
        ([f"tasks=[{POINT}]"], "tasks= names 1, and datasets= 2"),
        ([f"tasks=[{PLANE},{POINT}]"], "was recorded with task Point-v0, not Plane-v0; give tasks=Point-v0"),
        ([f"task={POINT}"], "task= is of one dataset"),
        (["dataset=data/other"], "dataset= is of one dataset"),
        (["env.action_repeat=2"], "action_repeat 1, not 2; give env.action_repeat=1"),
        (["model.predicts_return=false"], "predicts_return=false: of several tasks it must be true"),
        (["env.observe=[pixels]", "model.observes=[pixels]"], "observes=[pixels]"),
        (
            ["experiment=reward_jepa", "compile=false"],
            "predicts_action=true: of several tasks it must be false",
        ),
    ],
)
def test_a_mistake_is_told_and_leaves_nothing(datasets, tmp_path, refused, overrides, expected):
    run_dir = tmp_path / "run"
    words = [f"datasets={datasets}", f"tasks=[{POINT},{PLANE}]", f"run_dir={run_dir}", *TINY]
    assert expected in refused("train", *words, "training.batch_size=8", *overrides)
    assert not run_dir.exists()


def test_datasets_are_several_and_of_different_tasks(datasets, tmp_path, refused):
    first = datasets[1:].partition(",")[0]
    run = f"run_dir={tmp_path / 'run'}"
    assert "one is dataset=" in refused("train", f"datasets=[{first}]", run)
    told = refused("train", f"datasets=[{first},{first}]", run)
    assert "are both of" in told
    assert "worldmodel data merge" in told
