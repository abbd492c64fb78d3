"""Numbers that are none, from wherever they come: told, and what is good stays."""

import numpy as np
import pytest
import torch
import toy_tasks

from worldmodel.apps.cli import main
from worldmodel.data import EpisodeDataset
from worldmodel.errors import DatasetError, DivergenceError
from worldmodel.training import ReturnTrainer, TrainerSettings, load_checkpoint
from worldmodel.training.trainer_state import trainer_tensors

STEP = 30  # in which a simulator breaks


@pytest.fixture
def refused(capsys):
    """A command that must fail as a user's mistake does; its one line."""

    def run(*arguments: str) -> str:
        capsys.readouterr()
        assert main(list(arguments)) == 2
        printed = capsys.readouterr().err
        assert printed.startswith("worldmodel: ")
        assert printed.count("\n") == 1, printed
        return printed

    return run


@pytest.fixture(params=["observation", "reward"])
def part(request):
    return request.param


@pytest.fixture(params=[np.nan, np.inf, -np.inf, 1e39], ids=["nan", "inf", "-inf", "beyond float32"])
def breaking(request, monkeypatch, part):
    """The point gives such a number in one step, and is sound after a reset."""
    original, state = toy_tasks.Point.step, {"steps": 0}

    def step(self, action):
        observation, reward, *rest = original(self, action)
        state["steps"] += 1
        if state["steps"] == STEP:
            if part == "reward":
                reward = request.param
            else:
                observation = observation.astype(np.float64)
                observation[0] = request.param
        return observation, reward, *rest

    monkeypatch.setattr(toy_tasks.Point, "step", step)


def test_training_saves_what_was_before_and_goes_on(breaking, tmp_path, refused):
    run_dir = tmp_path / "run"
    words = [f"task={toy_tasks.POINT}", *toy_tasks.TINY_TRAINING, "env_steps=80", "num_envs=1"]
    told = refused("train", f"run_dir={run_dir}", *words)
    assert "diverged" in told
    assert f"worldmodel train run_dir={run_dir} resume=true" in told
    checkpoint = load_checkpoint(run_dir)
    assert all(tensor.isfinite().all() for tensor in trainer_tensors(checkpoint.trainer()).values())
    assert len(EpisodeDataset.open(run_dir / "dataset")) == 1  # the one before, of 20 steps
    assert main(["train", f"run_dir={run_dir}", f"task={toy_tasks.POINT}", "resume=true"]) == 0
    assert load_checkpoint(run_dir).info["env_steps"] >= 80


def test_collecting_leaves_that_episode_out(breaking, tmp_path, capsys):
    words = [f"task={toy_tasks.POINT}", "episodes=4", "num_envs=1", "policy=random", "env.action_repeat=1"]
    assert main(["collect", *words, f"dataset={tmp_path / 'data'}"]) == 0
    dataset = EpisodeDataset.open(tmp_path / "data")
    assert [each.info["number"] for each in dataset] == [0, 2, 3]
    assert "diverged" in capsys.readouterr().out


def test_control_says_what_broke(breaking, tmp_path, refused):
    words = [f"task={toy_tasks.POINT}", "agent=random", "video=false", "episodes=3", "env.action_repeat=1"]
    assert "diverged" in refused("control", *words, f"output={tmp_path}")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_gradient_that_is_none_does_not_reach_the_weights(tiny_model, bad):
    from made_linear import linear_batch

    trainer = ReturnTrainer(tiny_model(), TrainerSettings(), seed=0)
    trainer.update(linear_batch(trainer.window, seed=0))
    before = {name: value.clone() for name, value in trainer_tensors(trainer).items()}
    with torch.no_grad():
        next(trainer.model.encoder.parameters()).flatten()[0] = bad
    broken = {name: value.clone() for name, value in trainer_tensors(trainer).items()}
    with pytest.raises(DivergenceError, match="last checkpoint is still sound"):
        trainer.update(linear_batch(trainer.window, seed=1))
    after = trainer_tensors(trainer)
    changed = [
        name
        for name in before
        if name != "generator"
        and not torch.equal(torch.nan_to_num(after[name].double()), torch.nan_to_num(broken[name].double()))
    ]
    assert not changed


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("column", ["observation", "reward", "action"])
def test_an_episode_with_such_a_number_is_refused(tmp_path, column, bad):
    from test_full_disk import episode

    good = episode(0)
    dataset = EpisodeDataset(tmp_path, mode="a")
    dataset.append(good)
    arrays = {"observation": good.observation["state"], "reward": good.reward, "action": good.action}
    array = arrays[column].copy()
    array.reshape(-1)[3] = bad
    parts = {
        "observation": good.observation | ({"state": array} if column == "observation" else {}),
        "reward": array if column == "reward" else good.reward,
        "action": array if column == "action" else good.action,
    }
    with pytest.raises(DatasetError, match=r"finite|NaN|inf"):
        dataset.append(type(good)(**parts, terminated=False, truncated=True, info={}))
    assert len(EpisodeDataset.open(tmp_path)) == 1
