"""Surprise: what physics forbids is played beside what happens, and the model left as it was."""

import copy
import csv

import numpy as np
import pytest

import envs
from envs.tasks import OWN_TASKS
from worldmodel.apps.cli import main

CASES = [(task, name) for task in OWN_TASKS for name in OWN_TASKS[task].violations]


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """A model of `drop` that has seen a little."""
    path = tmp_path_factory.mktemp("surprise")
    command = ["collect", "task=drop", "env.action_repeat=1", "policy=colored", "episodes=60", "num_envs=30"]
    assert main([*command, f"dataset={path / 'data'}"]) == 0
    command = ["train", f"dataset={path / 'data'}", "experiment=jepa", f"run_dir={path / 'run'}"]
    command += ["num_updates=300", "eval_every=100000", "eval_episodes=1", "training.batch_size=64"]
    command += ["model.hidden_dim=64", "model.encoder_dim=64"]
    command += ["planner.num_candidates=20", "planner.num_iterations=1"]
    assert main(command) == 0
    return path / "run"


def test_a_teleport_surprises_and_another_colour_is_not_seen(run_dir, tmp_path):
    command = ["surprise", f"checkpoint={run_dir}", "episodes=12", f"output={tmp_path}"]
    assert main([*command, "violations=[teleport,gravity_off,recolor]"]) == 0
    with (tmp_path / "surprise.csv").open() as file:
        rows = {row["violation"]: row for row in csv.DictReader(file)}
    assert float(rows["teleport"]["auroc"]) > 0.8
    assert float(rows["teleport"]["ratio"]) > 2
    assert float(rows["recolor"]["auroc"]) == 0.5, "a state has no colours: nothing differs"
    assert rows["recolor"]["p_value"] == ""
    assert (tmp_path / "surprise.png").stat().st_size > 5000


@pytest.mark.parametrize(("task", "name"), CASES)
def test_a_violation_changes_what_follows_or_how_it_looks_and_can_be_taken_back(task, name):
    env = envs.make(task)
    violation = envs.violations_of(env)[name]
    model = env.simulation.model
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (40, *env.action_space.shape))
    for seed in range(40):
        plain, due = drive(env, seed, actions, violation)
        if due is None:
            continue
        fields = ("geom_rgba", "geom_contype", "dof_damping")
        before = {field: getattr(model, field).copy() for field in fields}
        gravity = model.opt.gravity.copy()
        saved = copy.copy(model)
        changed, _ = drive(env, seed, actions, violation, at=due)
        looks = not np.array_equal(model.geom_rgba, before["geom_rgba"])
        moves = np.abs(changed - plain).max() > 1e-3
        assert looks or moves or not np.array_equal(model.geom_contype, before["geom_contype"])
        assert moves or not violation.breaks_physics or name in ("vanish", "pass_through")
        envs.copy_model(saved, model)
        for field, values in before.items():
            np.testing.assert_array_equal(getattr(model, field), values)
        np.testing.assert_array_equal(model.opt.gravity, gravity)
        again, _ = drive(env, seed, actions, violation)
        np.testing.assert_array_equal(again, plain)
        return
    pytest.fail("it was never due")


def drive(env, seed, actions, violation, at=None):
    """States of an episode; the first step from the third on at which the violation is due."""
    env.reset(seed=seed)
    simulation, states, due = env.simulation, [], None
    for index, action in enumerate(actions):
        if due is None and index >= 2 and violation.is_due(simulation.model, simulation.data):
            due = index
        if index == at:
            violation.apply(simulation.model, simulation.data, np.random.default_rng(seed))
            env.set_physics_state(env.physics_state())
        states.append(env.step(action)[0]["state"])
    return np.array(states), due


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["violations=[teleprt]"], "did you mean teleport"),
        (["episodes=0"], "episodes=0: must be at least 1"),
        (["window=0"], "window=0: must be at least 1"),
    ],
)
def test_a_mistake_is_one_line(run_dir, capsys, words, expected):
    assert main(["surprise", f"checkpoint={run_dir}", *words]) == 2
    error = capsys.readouterr().err
    assert expected in error
    assert len(error.strip().splitlines()) == 1


def test_a_task_without_violations_is_refused():
    with pytest.raises(envs.EnvError, match="cartpole-swingup has no violations of physics"):
        envs.violations_of(envs.make("cartpole-swingup"))
