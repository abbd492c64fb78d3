"""One model of two linear tasks of different sizes: what is learned of each, and what they share."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from made_linear import reach_episode, two_tasks

from worldmodel.errors import CheckpointError, ConfigError
from worldmodel.model import TaskSize, WorldModel, single_task
from worldmodel.training import (
    ReturnTrainer,
    TrainerSettings,
    load_checkpoint,
    losses,
    save_checkpoint,
)
from worldmodel.training.checkpoint_state import built, model_of

SIZES = {
    "state_dim": 3,
    "action_dim": 2,
    "tasks": [TaskSize(state_dim=3, action_dim=2), TaskSize(state_dim=1, action_dim=1)],
    "task_dim": 4,
}


@pytest.fixture
def make(tiny_model):
    def build(*, seed=0, sizes=None, **settings) -> ReturnTrainer:
        fast = {"learning_rate": 3e-3, "encoder_learning_rate": 3e-3, "horizon": 2}
        model = tiny_model(seed=seed, **(SIZES | (sizes or {})))
        return ReturnTrainer(model, TrainerSettings(**(fast | settings)), seed=seed)

    return build


def normalize(model: WorldModel, tasks) -> None:
    for index, dataset in enumerate(tasks.datasets):
        for episode in dataset:
            state = torch.from_numpy(episode.observation["state"].copy())
            model.encoder.update_statistics({"state": state, "task": torch.tensor(index)})


def weights(trainer: ReturnTrainer) -> dict[str, torch.Tensor]:
    return trainer.averaged_model.state_dict() | trainer.target_q.state_dict()


def test_each_task_is_learned_by_its_own_dynamics_reward_and_unit_of_values(make):
    """In one model; 1 and -100 are the same reward to it, but for the task."""
    trainer = make(average_fraction=0.1, reward_coefficient=1.0)
    tasks, chance = two_tasks(30), np.random.default_rng(0)
    normalize(trainer.model, tasks)
    for _ in range(400):
        metrics = trainer.update(tasks.sample(64, trainer.window, chance))
    assert metrics["grad_norm"].isfinite()
    small, large = trainer.value_scale
    assert 1 <= small < 10
    assert large > 5 * small
    with torch.no_grad():
        for index, episode in enumerate(
            dataset.episode(0) for dataset in two_tasks(1, num_steps=200).datasets
        ):
            model = single_task(trainer.averaged_model, index)
            state, action = (
                torch.from_numpy(part.copy()) for part in (episode.observation["state"], episode.action)
            )
            latent = model.encode({"state": state})
            reward = torch.from_numpy(episode.reward.copy())
            error = (model.reward(latent[:-1], action) - reward).square().mean()
            assert error < 0.2 * reward.var(), index
            moved = (model.step(latent[:-1], action) - latent[1:]).square().mean()
            assert moved < 0.25 * (latent[1:] - latent[:-1]).square().mean(), index


def test_a_unit_of_values_follows_their_range_and_stays_where_there_are_none():
    values = torch.cat([torch.linspace(0, 100, 101), torch.zeros(50)])
    task = torch.tensor([1] * 101 + [2] * 50)
    moved = losses.moved_scale(torch.tensor([7.0, 10.0, 1.0]), values, task)
    torch.testing.assert_close(moved, torch.tensor([7.0, 10 + 0.01 * 80, 1.0]))
    alone = losses.moved_scale(torch.tensor(10.0), values[:101])
    assert torch.equal(alone, moved[1])


def test_a_batch_of_one_task_moves_the_unit_of_that_alone(make):
    trainer, tasks = make(), two_tasks(5)
    trainer.value_scale = [3.0, 200.0]
    batch = tasks.sample(16, trainer.window, np.random.default_rng(0))
    rows = batch.observation["task"][:, 0] == 1
    alone = dataclasses.replace(
        batch,
        observation={key: value[rows] for key, value in batch.observation.items()},
        **{name: getattr(batch, name)[rows] for name in ("action", "reward", "terminated", "valid")},
    )
    trainer.update(alone)
    assert trainer.value_scale[0] == 3.0
    assert trainer.value_scale[1] != 200.0


def test_what_pads_actions_has_no_part_in_training(make):
    """Neither the policy's noise there nor what is drawn of it: only its own entries decide."""
    episode = reach_episode(0)
    trainers = [make(), make()]
    for trainer, offset in zip(trainers, (0.0, 5.0), strict=True):
        batch = two_tasks(3).sample(8, trainer.window, np.random.default_rng(0))
        is_reach = batch.observation["task"][:, 0] == 1
        noise = trainer._noise
        trainer._noise = lambda shape, like, noise=noise, offset=offset, rows=is_reach: (
            noise(shape, like) + offset * (torch.arange(shape[-1]) == 1) * rows[:, None, None]
        )
        trainer.update(batch)
        trainer.update(batch)
    assert episode.action.shape[1] == 1
    for left, right in zip(*(trainer.model.parameters() for trainer in trainers), strict=True):
        torch.testing.assert_close(left, right)


def test_a_checkpoint_goes_on_to_the_bit(make, tmp_path):
    tasks = two_tasks()
    straight, stopped = (make(seed=2, average_fraction=0.1) for _ in range(2))
    for trainer in (straight, stopped):
        normalize(trainer.model, tasks)
    batches = [tasks.sample(16, straight.window, np.random.default_rng(seed)) for seed in range(6)]
    for batch in batches:
        straight.update(batch)
    for batch in batches[:3]:
        stopped.update(batch)
    save_checkpoint(tmp_path, stopped, {"env_steps": 3})
    checkpoint = load_checkpoint(tmp_path)
    resumed = checkpoint.trainer()
    assert isinstance(resumed, ReturnTrainer)
    assert resumed.model.size == stopped.model.size
    for batch in batches[3:]:
        resumed.update(batch)
    for name, value in weights(straight).items():
        assert torch.equal(value, weights(resumed)[name]), name
    assert straight.value_scale == resumed.value_scale


COMPILED = """
import numpy as np
import torch
from made_linear import two_tasks
from worldmodel.model import TaskSize, WorldModel, WorldModelSize
from worldmodel.training import ReturnTrainer, TrainerSettings, objectives
from worldmodel.training.policy_objective import policy_loss

tasks = [TaskSize(state_dim=3, action_dim=2), TaskSize(state_dim=1, action_dim=1)]
torch.manual_seed(0)
model = WorldModel(WorldModelSize(state_dim=3, action_dim=2, tasks=tasks, latent_dim=16, num_bins=41))
settings = TrainerSettings(horizon=2, num_td_steps=2)
trainer = ReturnTrainer(model, settings, seed=0)
batch, noise = two_tasks().sample(16, trainer.window, np.random.default_rng(0)), torch.randn(16, 2, 2)
found = []
for made in (lambda function: function, torch.compile(backend="aot_eager", fullgraph=True)):
    world, policy = (made(each) for each in (objectives.world_loss, policy_loss))
    heads = {"target_q": trainer.target_q, "heads": torch.arange(2)}
    loss, _, latent = world(model, settings, batch, noise=noise, **heads)
    scale, task = torch.tensor([1.0, 5.0]), batch.observation["task"][:, 0]
    more = {"valid": batch.valid[:, :2], "noise": noise, "value_scale": scale, "task": task}
    found.append((loss, *policy(model, settings, latent, **more)))
torch.testing.assert_close(*found)
"""


@pytest.mark.slow
def test_its_losses_can_be_compiled():
    """In one piece: nothing in them waits for a number, or depends on which tasks there are."""
    # Elsewhere: the checks of shapes that these tests run with cannot be compiled.
    folder = Path(__file__).parents[1]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), str(folder.parent)])}
    subprocess.run([sys.executable, "-c", COMPILED], check=True, env=environment)


def test_joint_embeddings_are_refused(make):
    with pytest.raises(ConfigError, match=r"jepa_coefficient=1\.0.*several tasks"):
        make(jepa_coefficient=1.0)


def test_a_value_scale_of_another_number_of_tasks_is_refused(make):
    for wrong in (2.0, [1.0], [1.0, 2.0, 3.0]):
        with pytest.raises(ValueError, match="value_scale"):
            make().value_scale = wrong


def test_tasks_that_a_files_weights_cannot_be_of_are_refused(make, tmp_path):
    model = make().model
    size = model.config() | {"tasks": [{"state_dim": 3, "action_dim": 2, "angles": []}] * 1000}
    claimed = built(type(model.size), size, tmp_path)
    with pytest.raises(CheckpointError, match="of 1000 tasks"):
        model_of(claimed, model.state_dict(), tmp_path)
    with pytest.raises(CheckpointError, match="make no sense"):
        built(type(model.size), model.config() | {"tasks": [{"state_dim": 3, "import": 1}]}, tmp_path)
