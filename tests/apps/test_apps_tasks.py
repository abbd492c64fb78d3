"""`worldmodel tasks`: what there is, by name."""

import envs
from worldmodel.apps.cli import main


def lines(capsys, *words):
    assert main(["tasks", *words]) == 0
    return capsys.readouterr().out.splitlines()


def test_all_tasks_are_listed(capsys):
    *found, further = lines(capsys)
    assert found == list(envs.task_names())
    assert "HalfCheetah-v5" in further


def test_few_are_listed_with_their_cameras(capsys):
    found = lines(capsys, "walker_w")
    assert found == ["walker-walk  cameras: side, back"]
    assert lines(capsys, "pattern=walker_w") == found
    assert any(line.startswith("HalfCheetah-v5  cameras: track") for line in lines(capsys, "cheetah-v5"))


def test_a_pattern_of_none_suggests_the_closest(refused):
    line = refused("tasks", "reacher-esay")
    assert "no task has 'reacher-esay' in its name (did you mean reacher-easy" in line
