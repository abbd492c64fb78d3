"""data export and import: there and back, nothing is lost; mistakes are told."""

import importlib
import json

import numpy as np
import pytest

from worldmodel.apps.cli import main
from worldmodel.data import Episode, EpisodeDataset
from worldmodel.data.formats import FORMATS

OUTPUTS = {"minari": "minari/reacher/made-v0", "lerobot": "lerobot", "stable-worldmodel": "reacher.h5"}


def needs(name: str) -> None:
    for package in FORMATS[name]:
        pytest.importorskip(package)


@pytest.fixture
def path(tmp_path):
    """Two episodes, of 3 and 5 steps."""
    path = tmp_path / "data"
    info = {"task": "reacher-easy", "action_repeat": 2, "control_period_s": 0.05}
    dataset = EpisodeDataset(path, mode="a", info=info)
    chance = np.random.default_rng(0)
    for num_steps in (3, 5):
        dataset.append(
            Episode(
                observation={"state": chance.normal(size=(num_steps + 1, 4)).astype(np.float32)},
                action=chance.uniform(-1, 1, (num_steps, 2)).astype(np.float32),
                reward=chance.normal(size=num_steps).astype(np.float32),
                terminated=num_steps == 3,
                truncated=num_steps == 5,
                extra={"plan_mean": chance.normal(size=(num_steps, 2)).astype(np.float32)},
                info={"policy": "made", "number": num_steps},
            )
        )
    return path


@pytest.mark.parametrize("name", FORMATS)
def test_there_and_back_nothing_is_lost(path, tmp_path, capsys, name):
    needs(name)
    output, back = tmp_path / OUTPUTS[name], tmp_path / "back"
    assert main(["data", "export", f"dataset={path}", f"format={name}", f"output={output}"]) == 0
    out = capsys.readouterr().out
    assert "2 episodes in" in out
    assert ("Minari finds it as reacher/made-v0 with MINARI_DATASETS_PATH=" in out) == (name == "minari")
    assert main(["data", "import", f"source={output}", f"format={name}", f"output={back}"]) == 0
    found, expected = EpisodeDataset.open(back), EpisodeDataset.open(path)
    for key, value in expected.info.items():
        assert found.info[key] == value
    for left, right in zip(found, expected, strict=True):
        np.testing.assert_array_equal(left.observation["state"], right.observation["state"])
        np.testing.assert_array_equal(left.action, right.action)
        np.testing.assert_array_equal(left.reward, right.reward)
        np.testing.assert_array_equal(left.extra["plan_mean"], right.extra["plan_mean"])
        assert (left.terminated, left.truncated) == (right.terminated, right.truncated)
        assert left.info == right.info


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_given_must_not_contradict_the_source(path, tmp_path, refused, name):
    needs(name)
    output, back = tmp_path / OUTPUTS[name], tmp_path / "back"
    assert main(["data", "export", f"dataset={path}", f"format={name}", f"output={output}"]) == 0
    command = ["data", "import", f"source={output}", f"format={name}", f"output={back}"]
    for given, said in (
        ("task=reacher-hard", "reacher-easy"),
        ("action_repeat=4", "2"),
        ("control_period_s=0.1", "0.05"),
    ):
        assert f"{given} contradicts the source {output}, which says {said}" in refused(*command, given)
    assert not back.exists()
    assert main([*command, "task=reacher_easy", "action_repeat=2", "control_period_s=0.0501"]) == 0
    assert EpisodeDataset.open(back).info["control_period_s"] == 0.0501


def test_what_is_given_replaces_a_sentence(path, tmp_path):
    """A task of LeRobot is what a person was told to do."""
    needs("lerobot")
    description = json.loads((path / "dataset.json").read_text())
    description["info"]["task"] = "Reach the ball."
    (path / "dataset.json").write_text(json.dumps(description))
    output, back = tmp_path / "lerobot", tmp_path / "back"
    assert main(["data", "export", f"dataset={path}", "format=lerobot", f"output={output}"]) == 0
    command = ["data", "import", f"source={output}", "format=lerobot", f"output={back}"]
    assert main([*command, "task=reacher-easy"]) == 0
    assert EpisodeDataset.open(back).info["task"] == "reacher-easy"


def test_mistakes_are_told(path, tmp_path, refused):
    export = ["data", "export", f"dataset={path}", f"output={tmp_path / 'out'}"]
    assert "no format 'minary' (did you mean minari?)" in refused(*export, "format=minary")
    for name in FORMATS:
        needs(name)
        there = tmp_path / OUTPUTS[name]
        there.mkdir(parents=True)
        line = refused(*export[:-1], f"output={there}", f"format={name}")
        assert f"{there} exists: choose another name, or delete it" in line
    load = ["data", "import", f"output={tmp_path / 'in'}", f"source={tmp_path / 'nowhere'}"]
    assert "action_repeat=-1" in refused(*load, "format=minari", "action_repeat=-1")
    needs("minari")
    assert "is for format=lerobot" in refused(*load, "format=minari", "camera=front")


@pytest.mark.parametrize("name", FORMATS)
def test_a_source_that_is_not_there_is_told(tmp_path, refused, name):
    needs(name)
    load = [f"output={tmp_path / 'in'}", f"source={tmp_path / OUTPUTS[name]}", f"format={name}"]
    assert str(tmp_path) in refused("data", "import", *load)
    assert not (tmp_path / "in").exists()


@pytest.mark.parametrize("name", FORMATS)
def test_a_missing_package_is_told_with_the_way_out(path, tmp_path, refused, name, monkeypatch):
    monkeypatch.setattr("worldmodel.data.formats._is_installed", lambda package: False)
    export = ["data", "export", f"dataset={path}", f"output={tmp_path / 'out'}", f"format={name}"]
    line = refused(*export)
    assert f"needs {' and '.join(FORMATS[name])}: pip install 'worldmodel[{name}]'" in line


def test_every_format_has_its_extra_and_its_module():
    import tomllib
    from pathlib import Path

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    for name, packages in FORMATS.items():
        extra = project["optional-dependencies"][name]
        assert [requirement.partition(">")[0] for requirement in extra][: len(packages)] == list(packages)
        assert importlib.util.find_spec(f"worldmodel.data.formats.{name.replace('-', '_')}")
