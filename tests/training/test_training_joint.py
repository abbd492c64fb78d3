"""Rewards and joint embeddings learned together: the same losses, in one update."""

import dataclasses

import numpy as np
import pytest
import torch
from made_linear import linear_batch, linear_dataset

from worldmodel.errors import ConfigError
from worldmodel.model import imagine
from worldmodel.training import ReturnTrainer, TrainerSettings, load_checkpoint, objectives, save_checkpoint
from worldmodel.training.regularizers import random_directions

SIGREG = {"sigreg_coefficient": 0.1}
VICREG = {"variance_coefficient": 1.0, "covariance_coefficient": 0.1, "inverse_coefficient": 1.0}
JOINT = {"jepa_coefficient": 1.0, "consistency_coefficient": 0.0}
FAST = {"learning_rate": 3e-3, "encoder_learning_rate": 3e-3}


@pytest.fixture
def make(tiny_model):
    def build(*, sizes=None, seed=0, **settings) -> ReturnTrainer:
        model = tiny_model(**({"latent_norm": "none", "predicts_action": True} | (sizes or {})))
        return ReturnTrainer(model, TrainerSettings(**(JOINT | FAST | settings)), seed=seed)

    return build


@pytest.mark.parametrize("sizes", [{}, {"history": 2, "num_dynamics": 2}, {"history": 3, "predictor": "gru"}])
@pytest.mark.parametrize("kind", [SIGREG, VICREG, SIGREG | {"predicts_average": True}])
def test_without_rewards_it_is_the_loss_of_models_without_rewards(make, sizes, kind):
    nothing = {"reward_coefficient": 0.0, "value_coefficient": 0.0}
    trainer = make(sizes=sizes, num_td_steps=3, **kind, **nothing)
    model, settings = trainer.model, trainer.settings
    batch = linear_batch(trainer.window)
    history = sizes.get("history", 1)
    assert trainer.window == history - 1 + settings.horizon + 2
    directions = random_directions(8, 16, torch.Generator().manual_seed(0))
    near = slice(trainer.window - 2)
    short = dataclasses.replace(
        batch,
        observation={"state": batch.observation["state"][:, : trainer.window - 1]},
        **{name: getattr(batch, name)[:, near] for name in ("action", "reward", "terminated", "valid")},
        extra={},
    )
    embedding_targets = objectives.EmbeddingTargets(directions, trainer.target_encoder)
    expected, parts = objectives.jepa_loss(model, settings, short, embedding_targets)
    loss, metrics, latent = objectives.world_loss(
        model,
        settings,
        batch,
        target_q=trainer.target_q,
        noise=torch.zeros(16, settings.horizon, 2),
        heads=torch.arange(2),
        embedding_targets=embedding_targets,
    )
    torch.testing.assert_close(loss, expected)
    for name in parts:
        torch.testing.assert_close(metrics[name], parts[name])
    assert latent.shape == (16, settings.horizon, model.layout.dim)


@pytest.mark.parametrize(
    ("kind", "sizes"),
    [
        (SIGREG, {}),
        pytest.param(VICREG, {}, marks=pytest.mark.slow),
        (VICREG, {"history": 2, "num_dynamics": 2}),
        pytest.param(SIGREG, {"history": 2, "num_dynamics": 2}, marks=pytest.mark.slow),
    ],
)
def test_rewards_are_learned_in_embeddings_that_stay_apart(make, sizes, kind):
    trainer = make(sizes=sizes, reward_coefficient=1.0, num_td_steps=2, **kind)
    dataset, chance = linear_dataset(num_episodes=30), np.random.default_rng(0)
    for episode in dataset:
        state = torch.from_numpy(episode.observation["state"].copy())
        trainer.model.encoder.update_statistics({"state": state})
    metrics = [trainer.update(dataset.sample(64, trainer.window, chance)) for _ in range(200)]
    signs = trainer.diagnose(dataset.sample(256, trainer.window, chance))
    assert set(trainer.shown) == {"loss", "value_loss", "embedding_rank"} <= (metrics[-1] | signs).keys()
    assert signs["embedding_std"] > 0.3
    assert signs["embedding_rank"] > 2

    def last(name):
        return float(torch.stack([each[name] for each in metrics[-20:]]).mean())

    assert last("reward_loss") < 0.5 * metrics[0]["reward_loss"]
    assert last("prediction_loss") < 0.2
    assert "variance_loss" in metrics[0] or "sigreg_loss" in metrics[0]


def test_a_latent_with_a_history_is_imagined_from_what_came_before(make):
    """Reward, value and policy see the latent that an agent has after as many observations."""
    trainer = make(sizes={"history": 3}, **SIGREG)
    model, batch = trainer.model, linear_batch(trainer.window)
    embeddings = model.embed(batch.observation)
    latents, predictions = objectives.rolled(model, trainer.settings, batch, embeddings)
    start = model.encode({"state": batch.observation["state"][:, 0]})
    for step in range(2):
        start = model.layout.advance(start, batch.action[:, step], embeddings[:, step + 1])
    torch.testing.assert_close(latents, imagine(model, start, batch.action[:, 2:]))
    torch.testing.assert_close(predictions[0], model.layout.current(latents[:, 1:]))


def test_every_predictor_learns_by_itself(make):
    trainer = make(
        sizes={"num_dynamics": 3, "latent_norm": "simnorm"},
        jepa_coefficient=0.0,
        consistency_coefficient=20.0,
    )
    trainer.update(linear_batch(trainer.window))
    last = trainer.model.dynamics[0].layers[-1].weight.grad
    assert (last.flatten(1).abs().sum(1) > 0).all()
    assert not torch.equal(last[0], last[1])


def test_a_checkpoint_goes_on_to_the_bit(make, tmp_path):
    settings = SIGREG | {"predicts_average": True, "average_fraction": 0.1}
    straight, stopped = (make(sizes={"history": 2}, seed=4, **settings) for _ in range(2))
    batches = [linear_batch(straight.window, seed=seed) for seed in range(6)]
    for batch in batches:
        straight.update(batch)
    for batch in batches[:3]:
        stopped.update(batch)
    save_checkpoint(tmp_path, stopped, {"env_steps": 3})
    resumed = load_checkpoint(tmp_path).trainer()
    assert isinstance(resumed, ReturnTrainer)
    for batch in batches[3:]:
        resumed.update(batch)
    for name, value in straight.averaged_model.state_dict().items():
        assert torch.equal(value, resumed.averaged_model.state_dict()[name]), name


def test_actions_cannot_be_guessed_without_a_head(make):
    with pytest.raises(ConfigError, match=r"inverse_coefficient=1\.0.*model\.predicts_action=true"):
        make(sizes={"predicts_action": False}, **VICREG)
