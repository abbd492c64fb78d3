"""Exported models act as the run did and say what they can do; so do those of the package."""

import json
import shutil

import numpy as np
import pytest
import toy_tasks

import envs
from worldmodel.apps import load_agent, pretrained
from worldmodel.apps.cli import main
from worldmodel.apps.pretrained import PRETRAINED, pretrained_names
from worldmodel.apps.trained import open_run
from worldmodel.errors import CheckpointError

POINT = f"task={toy_tasks.POINT}"


@pytest.fixture(scope="module")
def exported(point_run, tmp_path_factory):
    """The point's run, exported."""
    output = tmp_path_factory.mktemp("models") / "point"
    arguments = ["export", f"checkpoint={point_run}", POINT, "episodes=2", f"output={output}"]
    assert main(arguments) == 0
    return output


def other_seed(point_run, directory, **settings):
    """What tells of a run with another seed and other settings: its config and metrics, no weights."""
    other = directory / "other"
    other.mkdir()
    shutil.copy(point_run / "metrics.jsonl", other)
    config = json.loads((point_run / "config.json").read_text()) | {"seed": 99} | settings
    (other / "config.json").write_text(json.dumps(config))
    return other


def test_an_exported_model_acts_as_the_run_does(point_run, exported):
    observation = {"state": np.array([[0.3, -0.2]], np.float32)}
    actions = [
        load_agent(path, task=toy_tasks.POINT, seed=4).act(observation).action
        for path in (point_run, exported)
    ]
    assert np.array_equal(*actions)


def test_it_is_small_and_says_no_paths(point_run, exported):
    assert {path.name for path in exported.iterdir()} == {
        "model.safetensors",
        "state.json",
        "card.json",
        "README.md",
    }
    assert open_run(exported, task=toy_tasks.POINT).checkpoint.is_exported
    for path in exported.glob("*.*"):
        assert str(point_run.parent).encode() not in path.read_bytes(), path


def test_the_card_is_what_control_and_imagine_measure(point_run, exported, tmp_path):
    card = json.loads((exported / "card.json").read_text())
    again = ["control", f"checkpoint={exported}", POINT, "episodes=2", "seed=500", "video=false"]
    assert main([*again, f"output={tmp_path}"]) == 0
    measured = json.loads((tmp_path / "control.json").read_text())["return"]
    assert {key: card["score"][key] for key in measured} == measured
    imagine = ["imagine", f"checkpoint={exported}", POINT, "seed=500", f"output={tmp_path}"]
    assert main(imagine) == 0
    assert card["errors"] == json.loads((tmp_path / "imagine.json").read_text())["table"]
    run = open_run(point_run, task=toy_tasks.POINT)
    assert card["env_steps"] == run.checkpoint.info["env_steps"]
    assert card["recipe"]["seeds"] == [run.config["seed"]]
    text = (exported / "README.md").read_text()
    assert f"latent size {run.model.size.latent_dim}," in text
    assert f"| score | {measured['mean']:.0f} [" in text


def test_its_default_outputs_lie_beside_it(exported):
    assert open_run(exported, task=toy_tasks.POINT).directory == exported


def test_it_tells_of_no_files_that_are_gone(point_run, tmp_path, capsys):
    output = tmp_path / "model"
    assert main(["export", f"checkpoint={point_run}", POINT, "episodes=1", f"output={output}"]) == 0
    assert "written" not in capsys.readouterr().out


def test_an_output_that_cannot_be_written_is_told_before_anything_is_measured(
    point_run, tmp_path, refused, monkeypatch
):
    (tmp_path / "file").touch()
    monkeypatch.setattr("worldmodel.apps.export.control", None)
    arguments = [f"checkpoint={point_run}", POINT, f"output={tmp_path / 'file' / 'model'}"]
    assert "cannot write" in refused("export", *arguments)


def test_training_cannot_go_on_from_it(exported):
    with pytest.raises(CheckpointError, match="without its trainer"):
        open_run(exported, task=toy_tasks.POINT).checkpoint.trainer()


def test_the_recipes_mean_is_over_its_seeds(point_run, tmp_path):
    other = other_seed(point_run, tmp_path)
    output = tmp_path / "model"
    arguments = [f"checkpoint={point_run}", f"others=[{other}]", POINT, "episodes=1", f"output={output}"]
    assert main(["export", *arguments]) == 0
    recipe = json.loads((output / "card.json").read_text())["recipe"]
    assert recipe["count"] == 2
    assert recipe["seeds"][1] == 99


def test_runs_of_another_recipe_are_refused(point_run, tmp_path, refused):
    other = other_seed(point_run, tmp_path, exploration_std=0.7)
    arguments = [f"checkpoint={point_run}", f"others=[{other}]", POINT, f"output={tmp_path / 'model'}"]
    assert "they differ in exploration_std" in refused("export", *arguments)
    arguments[1] = f"others=[{point_run}]"
    assert "seeds 0, 0: each must have its own" in refused("export", *arguments)
    arguments[1] = f"others=[{tmp_path / 'nowhere'}]"
    assert "there is no run in" in refused("export", *arguments)
    assert not (tmp_path / "model").exists()


def test_nothing_is_overwritten(point_run, exported, refused):
    assert "exists" in refused("export", f"checkpoint={point_run}", POINT, f"output={exported}")


def test_a_pretrained_model_is_found_by_name(exported, tmp_path, monkeypatch, refused):
    monkeypatch.setattr(pretrained, "PRETRAINED", exported.parent)
    assert pretrained.resolve("pretrained/point") == exported
    printed = refused("control", "checkpoint=pretrained/ponit")
    assert "did you mean point?" in printed
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pretrained" / "point").mkdir(parents=True)  # what lies here comes first
    assert pretrained.resolve("pretrained/point").as_posix() == "pretrained/point"


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name == "cheetah-run" else pytest.mark.slow)
        for name in pretrained_names()
    ],
)
def test_a_pretrained_model_does_what_its_card_says(name, tmp_path):
    """One episode each; the card's own numbers are of many."""
    folder = PRETRAINED / name
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 2_000_000
    card = json.loads((folder / "card.json").read_text())
    assert envs.canonical_task(card["task"]) == name
    arguments = [f"checkpoint=pretrained/{name}", "episodes=1", "video=false", f"output={tmp_path}"]
    assert main(["control", *arguments]) == 0
    found = json.loads((tmp_path / "control.json").read_text())
    assert found["returns"][0] > 0.7 * card["score"]["mean"]


def test_a_pretrained_models_outputs_lie_in_runs(exported, monkeypatch):
    monkeypatch.setattr(pretrained, "PRETRAINED", exported.parent)
    opened = open_run("pretrained/point", task=toy_tasks.POINT)
    assert opened.directory.as_posix() == "runs/pretrained/point"


def test_a_run_of_a_version_that_knew_fewer_settings_is_of_the_same_recipe(point_run, tmp_path, refused):
    other = tmp_path / "other"
    shutil.copytree(point_run, other)
    config = json.loads((other / "config.json").read_text())
    config["seed"] = config["seed"] + 1
    del config["env"]["hide"], config["precision"]
    (other / "config.json").write_text(json.dumps(config))
    arguments = [f"checkpoint={point_run}", f"others=[{other}]", POINT, "episodes=1"]
    assert main(["export", *arguments, f"output={tmp_path / 'model'}"]) == 0
    config["training"]["rho"] = 0.9
    (other / "config.json").write_text(json.dumps(config))
    assert "they differ in training" in refused("export", *arguments, f"output={tmp_path / 'another'}")
