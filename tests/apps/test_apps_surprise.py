"""Surprise: what physics forbids is played beside what happens, and the model left as it was."""

import copy
import csv

import imageio.v3 as iio
import numpy as np
import pytest
import torch

import envs
from envs.tasks import OWN_TASKS
from worldmodel.analysis import surprise
from worldmodel.apps.cli import main
from worldmodel.apps.expectation import Expectation
from worldmodel.apps.script import Break, Script
from worldmodel.apps.surprise_video import decades
from worldmodel.apps.trained import open_run

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
    assert float(rows["teleport"]["ratio"]) > 1.5
    moment, lasting, either = (
        float(rows["teleport"][key]) for key in ("auroc", "auroc_lasting", "auroc_either")
    )
    assert 0 <= lasting < either <= moment
    assert float(rows["recolor"]["auroc"]) == float(rows["recolor"]["auroc_either"]) == 0.5, (
        "a state has no colours: nothing differs"
    )
    assert rows["recolor"]["p_value"] == ""
    assert (tmp_path / "surprise.png").stat().st_size > 5000
    film = iio.imread(tmp_path / "surprise.mp4")
    # Of each violation the start and 75 steps, then a second's stay, 12 frames a second.
    assert len(film) == 3 * (75 + 1 + 12)
    assert film.shape[2] > 2 * 360
    left, right = film[:, 78:438, 12:372].astype(np.int16), film[:, 78:438, 384:744].astype(np.int16)
    differs = np.abs(left - right).max((1, 2, 3)) > 100
    assert not differs[:3].any(), "the teleport comes before the third step"
    assert differs[3:76].all()
    assert differs[200:].any(), "another colour is seen in the video"


@torch.no_grad()
def test_what_is_expected_further_ahead_is_what_the_model_says_of_its_own_predictions(run_dir):
    model = open_run(run_dir).model
    chance = torch.Generator().manual_seed(0)
    seen = model.embed({"state": torch.rand(4, model.size.state_dim, generator=chance)})
    actions = torch.rand(3, 1, model.size.action_dim, generator=chance)
    found = {}
    for ahead in (1, 2):
        expectation, latent = Expectation(model, ahead), model.layout.start(seen[:1])
        for action, embedding in zip(actions, seen[1:], strict=True):
            expectation.note(latent, action)
            found[ahead] = surprise(expectation.errors(embedding[None]))
            latent = model.layout.advance(latent, action, embedding[None])
    assert found[1][0] == found[1][1] == pytest.approx(found[2][0], rel=1e-5)
    assert found[2][1] != pytest.approx(found[2][0], rel=1e-2)


def test_without_a_video_none_is_left_of_another_call(run_dir, tmp_path):
    (tmp_path / "surprise.mp4").write_bytes(b"of another call")
    command = ["surprise", f"checkpoint={run_dir}", "episodes=1", f"output={tmp_path}", "video=false"]
    assert main([*command, "violations=[recolor]"]) == 0
    assert not (tmp_path / "surprise.mp4").exists()


def test_a_script_plays_the_same_until_it_is_broken():
    env = envs.make("drop")
    script = Script.drawn(env, 3)
    assert script.actions.shape == (75, 2)
    plain = [each["state"] for each in script.play(env)]
    again = [each["state"] for each in script.play(env)]
    broken = [each["state"] for each in script.play(env, Break(envs.violations_of(env)["teleport"], 10))]
    assert len(plain) == 76
    np.testing.assert_array_equal(plain, again)
    np.testing.assert_array_equal(plain[:11], broken[:11])
    assert np.abs(plain[11] - broken[11]).max() > 0.05


def test_a_script_that_is_left_early_leaves_the_model_as_it_was():
    env = envs.make("drop")
    gravity = env.simulation.model.opt.gravity.copy()
    playing = Script.drawn(env, 3).play(env, Break(envs.violations_of(env)["gravity_off"], 0))
    next(playing), next(playing)
    assert not np.array_equal(env.simulation.model.opt.gravity, gravity)
    playing.close()
    np.testing.assert_array_equal(env.simulation.model.opt.gravity, gravity)


@pytest.mark.parametrize(
    ("values", "expected"),
    [([0.02, 3.0], (-2, 1)), ([1e-30, 5.0], (-5, 1)), ([0.5, 0.6], (-1, 0)), ([0.0, 0.0], (-18, -12))],
)
def test_the_scale_of_the_trace_is_whole_decades_and_not_too_many(values, expected):
    assert decades(np.array(values)) == expected


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


def test_a_pusher_that_goes_through_the_block_leaves_it_where_it_is():
    """The block stays on the table: it would be gone from the picture, which is another violation."""
    for seed in range(5):
        env = envs.make("push")
        simulation = env.simulation
        state = env.reset(seed=seed)[0]["state"]
        before = simulation.data.qpos.copy()
        violation = envs.violations_of(env)["pass_through"]
        violation.apply(simulation.model, simulation.data, np.random.default_rng(0))
        for _ in range(60):
            way = before[2:4] - state[:2]
            state = env.step(np.clip(10 * way, -1, 1))[0]["state"]
        np.testing.assert_allclose(state[:2], before[2:4], atol=0.02)
        np.testing.assert_allclose(simulation.data.qpos[2:], before[2:], atol=1e-3)
        env.close()


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
        (["ahead=0"], "ahead=0: must be at least 1"),
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
