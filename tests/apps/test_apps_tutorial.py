"""The guide's three minutes: its commands as they stand there, in short and, slowly, in full."""

import csv
import re
import shlex
from pathlib import Path

import pytest

import envs
from worldmodel.apps.cli import main

GUIDE = Path(__file__).parents[2] / "docs" / "understanding.md"
# What makes a command short, after what stands in the guide.
SHORT = {
    "collect": ["episodes=12", "num_envs=6"],
    "train": ["num_updates=4", "eval_every=4", "eval_episodes=2", "training.batch_size=8"],
    "bench": ["episodes=2", "inverse_updates=5", "planner.num_candidates=32", "planner.num_iterations=1"],
    "control": ["episodes=1", "alarm=off", "planner.num_candidates=32", "planner.num_iterations=1"],
    "probe": ["episodes=12"],
    "imagine": ["episodes=2", "horizon=10", "decoder.updates=2", "decoder.images=20"],
    "surprise": ["episodes=2", "video=false"],
}


def commands() -> list[list[str]]:
    found = re.search(r"<!-- The tests run these commands. -->\n```\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    assert found is not None
    words = [shlex.split(line) for line in found[1].strip().splitlines()]
    assert all(line[0] == "worldmodel" for line in words)
    return [line[1:] for line in words]


def without(arguments: list[str], replaced: list[str]) -> list[str]:
    keys = {each.partition("=")[0] for each in replaced}
    return [each for each in arguments if each.partition("=")[0] not in keys]


def test_the_three_minutes_run_in_short(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    verbs = []
    for line in commands():
        short = SHORT[line[0]]
        assert main([*without(line, short), *short]) == 0, line
        verbs.append(line[0])
    assert set(verbs) == set(SHORT)
    for page in ("goals/goals.md", "control-icem/control.mp4", "probe/probe.md", "imagine/imagine.png"):
        assert (tmp_path / "runs" / "rooms" / page).stat().st_size > 100


@pytest.mark.slow
def test_the_three_minutes_reach_the_goals(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for line in commands()[:3]:
        assert main(line) == 0, line
    with (tmp_path / "runs" / "rooms" / "goals" / "goals.csv").open() as file:
        success = {row["agent"]: float(row["success"]) for row in csv.DictReader(file)}
    assert success["planner"] >= 0.9
    assert success["planner"] > success["random"] + 0.5


def test_the_guides_task_is_one_of_ours():
    assert "task=tworoom" in commands()[0]
    assert "tworoom" in envs.goal_task_names()
