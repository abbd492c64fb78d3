"""`control goal=`: pictures, observations, physics states and numbers; and what is wrong with others."""

import json

import numpy as np
import pytest
from PIL import Image

import envs
from worldmodel.apps import control as control_module
from worldmodel.apps.build import build_env
from worldmodel.apps.cli import main
from worldmodel.apps.given_goal import given_goal
from worldmodel.apps.simple_agents import ZeroAgent
from worldmodel.apps.trained import open_run

SIZE = 32
TRAIN = ["experiment=jepa", "num_updates=2", "eval_every=2", "eval_episodes=1", "training.batch_size=16"]
TRAIN += ["model.hidden_dim=32", "model.latent_dim=8", "planner.horizon=3", "planner.num_candidates=16"]
TRAIN += ["planner.num_elites=4", "planner.num_iterations=1", f"env.image_size={SIZE}"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Run folders of tworoom's pixels and states, and of cheetah's states, by name."""
    folder = tmp_path_factory.mktemp("given")
    found = {"folder": folder}
    for name, task, repeat, observe in [
        ("pixels", "tworoom", 10, "[state,pixels]"),
        ("states", "tworoom", 10, "[state,pixels]"),
        ("cheetah", "cheetah-run", 100, "[state]"),
    ]:
        data, found[name] = folder / f"data-{task}", folder / name
        env = [f"env.action_repeat={repeat}", f"env.image_size={SIZE}", f"env.observe={observe}"]
        if not data.exists():
            command = ["collect", f"task={task}", *env, "episodes=2", f"dataset={data}"]
            assert main([*command, "policy=colored"]) == 0
        kind = "[pixels]" if name == "pixels" else "[state]"
        more = [f"env.observe={observe}", f"model.observes={kind}", f"run_dir={found[name]}"]
        assert main(["train", f"dataset={data}", *TRAIN, *more]) == 0
    return found


def result_of(run, goal, *more):
    command = [
        "control",
        f"checkpoint={run}",
        f"goal={goal}",
        "episodes=1",
        "video=false",
        "alarm=off",
        *more,
    ]
    assert main(command) == 0
    return json.loads((run / "control-icem" / "control.json").read_text())


def tworoom(**kwargs):
    env = envs.make("tworoom", action_repeat=10, image_size=SIZE, observe=["state", "pixels"], **kwargs)
    env.reset(seed=5)
    return env


def saved(path, **arrays):
    np.savez(path, **arrays)
    return path


def test_numbers_are_the_tasks_own_goal_and_judged(runs):
    result = result_of(runs["states"], "[0.5,-0.4]")
    assert result["success"]["count"] == 1
    assert result["goal"] == [0.5, -0.4]
    assert result["distance_left"]["mean"] > 0


def test_a_physics_state_is_judged_where_the_task_has_goals(runs, tmp_path):
    env = tworoom()
    path = saved(tmp_path / "goal.npz", physics_state=env.goal.goal_state())
    assert "success" in result_of(runs["pixels"], path)
    run = open_run(runs["pixels"])
    vector = build_env("tworoom", run.config["env"], num_envs=1, seed=0, how="sync")
    goal = given_goal(str(path), vector, run.model)
    vector.reset(seed=[1])
    goal.start()
    np.testing.assert_allclose(vector.task_envs[0].goal.goal, env.goal.goal)
    np.testing.assert_array_equal(goal.observed()["pixels"][0], envs.goal_observation(env)["pixels"])
    assert not goal.is_reached(vector, 1)
    vector.task_envs[0].set_physics_state(env.goal.goal_state())
    assert goal.is_reached(vector, 1)
    assert not goal.is_reached(vector, 11), "too late"
    vector.close()


def test_a_physics_state_of_a_task_without_goals_is_observed_and_not_judged(runs, tmp_path):
    env = envs.make("cheetah-run")
    env.reset(seed=3)
    path = saved(tmp_path / "goal.npz", physics_state=env.physics_state())
    result = result_of(runs["cheetah"], path)
    assert "success" not in result
    assert result["distance_left"]["mean"] > 0


def test_a_picture_is_seen_as_the_model_sees_it(runs, tmp_path):
    pixels = envs.goal_observation(tworoom())["pixels"]
    image = Image.fromarray(pixels.transpose(1, 2, 0))
    image.save(tmp_path / "goal.png")
    wide = Image.new("RGB", (4 * SIZE, 2 * SIZE))
    wide.paste(image.resize((2 * SIZE, 2 * SIZE), Image.Resampling.NEAREST), (SIZE, 0))
    wide.save(tmp_path / "wide.png")
    run = open_run(runs["pixels"])
    vector = build_env("tworoom", run.config["env"], num_envs=1, seed=0, how="sync")
    for name in ("goal.png", "wide.png"):
        goal = given_goal(str(tmp_path / name), vector, run.model)
        np.testing.assert_array_equal(goal.observed()["pixels"], pixels[None])
        assert not goal.is_judged
    vector.close()
    assert "success" not in result_of(runs["pixels"], tmp_path / "goal.png")


def test_an_observation_needs_what_the_model_observes(runs, tmp_path):
    observation = envs.goal_observation(tworoom())
    path = saved(tmp_path / "both.npz", **observation)
    for name, key in (("pixels", "pixels"), ("states", "state")):
        run = open_run(runs[name])
        vector = build_env("tworoom", run.config["env"], num_envs=1, seed=0, how="sync")
        observed = given_goal(str(path), vector, run.model).observed()
        assert list(observed) == [key]
        np.testing.assert_array_equal(observed[key][0], observation[key])
        vector.close()


def test_the_distance_left_is_0_at_the_goal_and_1_at_the_start(runs, tmp_path):
    path = saved(tmp_path / "both.npz", **envs.goal_observation(tworoom()))
    run = open_run(runs["pixels"])
    vector = build_env("tworoom", run.config["env"], num_envs=1, seed=0, how="sync")
    goal = given_goal(str(path), vector, run.model)
    first, _ = vector.reset(seed=[1])
    assert goal.distance_left(run.model, first, goal.observed()) == pytest.approx(0, abs=1e-5)
    assert goal.distance_left(run.model, first, first) == pytest.approx(1)
    vector.close()


def write_broken(folder):
    """Files by name."""
    pixels = np.zeros((3, SIZE, SIZE), np.uint8)
    (folder / "text.png").write_text("no picture")
    (folder / "text.npz").write_text("no arrays")
    (folder / "notes.txt").write_text("a place")
    Image.new("RGB", (SIZE, SIZE)).save(folder / "picture.png")
    Image.new("RGB", (SIZE, SIZE)).save(folder / "gif.png", format="GIF")
    np.savez(folder / "objects.npz", pixels=np.array([{"a": 1}], object))
    np.savez(folder / "large.npz", pixels=np.zeros(70_000_000, np.uint8))
    np.savez(folder / "channels_last.npz", pixels=pixels.transpose(1, 2, 0))
    np.savez(folder / "floats.npz", pixels=pixels.astype(np.float32))
    np.savez(folder / "nan.npz", state=np.full(6, np.nan))
    np.savez(folder / "other.npz", picture=pixels)
    np.savez(folder / "state.npz", state=np.zeros(6, np.float32))
    np.savez(folder / "mixed.npz", state=np.zeros(6, np.float32), physics_state=np.zeros(3))
    np.savez(folder / "short.npz", physics_state=np.zeros(3))
    np.save(folder / "array.npy", pixels)
    (folder / "array.npy").rename(folder / "array.npz")


@pytest.mark.parametrize(
    ("run", "goal", "expected"),
    [
        ("pixels", "nowhere.png", "there is no such file"),
        ("pixels", "notes.txt", "a picture (.png, .jpg), an observation"),
        ("pixels", "text.png", "cannot be read as a picture"),
        ("pixels", "gif.png", "cannot be read as a picture"),
        ("states", "picture.png", "this model observes state: give a .npz"),
        ("cheetah", "picture.png", "this model observes state: give a .npz"),
        ("pixels", "text.npz", "cannot be read as .npz of plain numbers"),
        ("pixels", "array.npz", "cannot be read as .npz of plain numbers"),
        ("pixels", "objects.npz", "cannot be read as .npz of plain numbers"),
        ("pixels", "large.npz", "more than 64 MB"),
        ("pixels", "channels_last.npz", "pixels is uint8 of shape (32, 32, 3)"),
        ("pixels", "floats.npz", "observes uint8 of shape (3, 32, 32)"),
        ("pixels", "state.npz", "has no pixels, which this model observes"),
        ("states", "nan.npz", "all finite"),
        ("states", "other.npz", "holds picture"),
        ("states", "mixed.npz", "holds physics_state, state"),
        ("states", "short.npz", "A physics state of this task is a finite vector of"),
        ("states", "[0.1]", "a goal has 2 finite numbers, got [0.1]"),
        ("states", "[a,b]", "must be numbers"),
        ("cheetah", "[0.1,0.2]", "cheetah-run has no goals in numbers"),
        ("cheetah", "null", "goal= is missing: cheetah-run draws none"),
    ],
)
def test_a_goal_that_cannot_be_is_one_line(runs, tmp_path, monkeypatch, capsys, run, goal, expected):
    write_broken(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert main(["control", f"checkpoint={runs[run]}", f"goal={goal}", "video=false"]) == 2
    error = capsys.readouterr().err
    assert expected in error
    assert len(error.strip().splitlines()) == 1


def test_goals_are_measured_where_a_task_draws_them(runs, capsys):
    assert main(["bench", "goals", f"checkpoint={runs['cheetah']}"]) == 2
    assert "cheetah-run draws no goals: give one to `worldmodel control`" in capsys.readouterr().err


def test_only_a_model_without_rewards_plans_to_goals(capsys):
    assert main(["control", "checkpoint=pretrained/reacher-easy", "goal=[0.1,0.2]"]) == 2
    assert "only models without rewards plan to goals" in capsys.readouterr().err
    assert main(["control", "task=tworoom", "agent=random", "goal=[0.1,0.2]"]) == 2
    assert "give the checkpoint= of a run with experiment=jepa" in capsys.readouterr().err


def test_a_task_whose_reward_knows_nothing_of_goals_counts_none(tmp_path):
    """Poses of reacher are goals for models without rewards alone."""
    command = ["control", "task=reacher-easy", "agent=zero", "episodes=1", "video=false"]
    assert main([*command, "env.action_repeat=100", f"output={tmp_path}"]) == 0
    assert "success" not in json.loads((tmp_path / "control.json").read_text())


def test_the_first_episode_is_that_of_the_seed(monkeypatch):
    """The warm-up begins it, and it is played all the same."""
    env = build_env("tworoom", {"action_repeat": 50}, num_envs=1, seed=3, how="sync")
    expected = env.reset(seed=list(env.env_seeds))[0]["state"]
    control_module._warm_up(env, ZeroAgent(2), 3)
    played = control_module.play(env, ZeroAgent(2), seeds=list(env.env_seeds))
    np.testing.assert_array_equal(played.first["state"], expected)
    later = control_module.play(env, ZeroAgent(2))
    assert np.abs(later.first["state"] - expected).max() > 0.01
    env.close()
