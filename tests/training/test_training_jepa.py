"""Learning to predict embeddings: the regularizers' known values, losses, collapse, and going on."""

import copy

import numpy as np
import pytest
import torch
from made_linear import linear_batch, linear_dataset

from worldmodel.data import Batch
from worldmodel.errors import ConfigError, DivergenceError
from worldmodel.model import LatentModel, WorldModelSize
from worldmodel.training import JepaTrainer, TrainerSettings, load_checkpoint, objectives, save_checkpoint
from worldmodel.training.regularizers import (
    covariance_loss,
    random_directions,
    signs_of_collapse,
    sigreg,
    spread,
    variance_loss,
)

SIZE = {"state_dim": 3, "action_dim": 2, "latent_dim": 8, "hidden_dim": 32, "encoder_dim": 32}
FAST = {"learning_rate": 3e-3, "encoder_learning_rate": 3e-3, "rho": 1.0, "max_grad_norm": 1.0}


def make(*, sizes=None, seed=0, **settings) -> JepaTrainer:
    torch.manual_seed(0)
    size = WorldModelSize(**(SIZE | {"latent_norm": "none", "predicts_return": False} | (sizes or {})))
    return JepaTrainer(LatentModel(size), TrainerSettings(**(FAST | settings)), seed=seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("name", "expected"), [("normal", 1.1), ("constant", 51.5), ("half", 19.9), ("double", 31.8)]
)
def test_sigreg_has_its_known_values(name, expected):
    """Of 3 times, a batch of 128 and 192 dimensions."""
    z = normal(3, 128, 192)
    z = {"normal": z, "constant": torch.zeros_like(z), "half": 0.5 * z, "double": 2 * z}[name]
    directions = random_directions(1024, 192, torch.Generator().manual_seed(1))
    assert sigreg(z, directions).item() == pytest.approx(expected, rel=0.02)


def test_sigreg_sees_numbers_that_are_not_normal_in_some_direction():
    directions = random_directions(256, 16, torch.Generator().manual_seed(1))
    few = normal(1, 512, 2) @ normal(2, 16, seed=2) * (8**0.5 / 4)
    assert sigreg(few, directions) > 3 * sigreg(normal(1, 512, 16), directions)


def test_directions_are_unit_vectors_by_their_generator():
    first, again = (random_directions(5, 7, torch.Generator().manual_seed(3)) for _ in range(2))
    torch.testing.assert_close(first.norm(dim=0), torch.ones(5))
    assert torch.equal(first, again)


def test_variance_and_covariance_have_their_known_values():
    z = normal(4000, 3)
    assert variance_loss(2 * z).item() == 0
    assert variance_loss(0.25 * z).item() == pytest.approx(0.75, abs=0.02)
    assert covariance_loss(z).item() < 0.01
    same = z[:, :1].expand(-1, 2)
    assert covariance_loss(same).item() == pytest.approx(same[:, 0].var().item() ** 2, rel=1e-4)


def test_the_spread_tells_a_line_from_a_ball():
    line, ball = normal(500, 1) @ torch.ones(1, 6), normal(5000, 6)
    assert spread(line)["embedding_rank"].item() == pytest.approx(1, abs=0.05)
    assert spread(ball)["embedding_rank"].item() == pytest.approx(6, abs=0.05)
    assert spread(3 * ball)["embedding_std"].item() == pytest.approx(3, rel=0.05)


@pytest.mark.parametrize(
    "settings",
    [
        {"sigreg_coefficient": 0.1},
        {"variance_coefficient": 1.0, "covariance_coefficient": 0.1, "inverse_coefficient": 1.0},
        {"predicts_average": True, "sigreg_coefficient": 0.05, "target_rate": 0.1},
        {"sigreg_coefficient": 0.1, "straightening_coefficient": 0.1},
    ],
)
@pytest.mark.parametrize("sizes", [{}, {"history": 2, "num_dynamics": 2}])
def test_a_linear_system_is_learned_and_nothing_collapses(settings, sizes):
    trainer = make(sizes=sizes, horizon=2, **settings)
    dataset, chance = linear_dataset(num_episodes=30), np.random.default_rng(0)
    for episode in dataset:
        trainer.model.encoder.update_statistics(
            {"state": torch.from_numpy(episode.observation["state"].copy())}
        )
    metrics = [trainer.update(dataset.sample(64, trainer.window, chance)) for _ in range(250)]
    batch = dataset.sample(256, trainer.window, chance)
    assert trainer.num_updates == 250
    signs = trainer.diagnose(batch)
    assert signs["embedding_std"] > 0.3
    assert signs["embedding_rank"] > 2
    embeddings = trainer.model.embed(batch.observation)
    moves = (embeddings[:, -1] - embeddings[:, -2]).square().mean()
    last = torch.stack([each["prediction_loss"] for each in metrics[-20:]]).mean()
    assert last < 0.3 * moves, "better than that nothing moves"


def test_without_a_regularizer_embeddings_collapse():
    """What the regularizers are for: this test tells that they are needed."""
    trainer = make(horizon=2)
    dataset, chance = linear_dataset(num_episodes=30), np.random.default_rng(0)
    first = trainer.diagnose(dataset.sample(256, 2, chance))["embedding_std"]
    for _ in range(300):
        trainer.update(dataset.sample(64, trainer.window, chance))
    signs = trainer.diagnose(dataset.sample(256, 2, chance))
    assert signs["embedding_std"] < 0.5 * first
    assert signs["embedding_sigreg"] > 50, "seen without being part of the loss"


def test_signs_of_collapse_hold_sigreg_along_directions_that_stay():
    z = normal(256, 16)
    values = [signs_of_collapse(each)["embedding_sigreg"].item() for each in (z, z, 0.5 * z, 0 * z)]
    assert values[0] == values[1]
    assert values[0] == pytest.approx(1.1, rel=0.15)
    assert values[2] > 20
    assert values[3] > 80


@pytest.mark.parametrize("settings", [{"sigreg_coefficient": 0.1}, {"variance_coefficient": 1.0}])
def test_what_is_diagnosed_changes_no_weight_to_the_bit(settings):
    batches = [linear_dataset().sample(32, 2, np.random.default_rng(seed)) for seed in range(4)]
    watched, unwatched = (make(horizon=2, **settings) for _ in range(2))
    chance = torch.random.get_rng_state()
    for batch in batches:
        watched.update(batch)
        signs = watched.diagnose(batch)
        assert all(torch.equal(value, watched.diagnose(batch)[name]) for name, value in signs.items())
        unwatched.update(batch)
    assert torch.equal(torch.random.get_rng_state(), chance)
    assert torch.equal(watched.generator.get_state(), unwatched.generator.get_state())
    for name, value in watched.model.state_dict().items():
        assert torch.equal(value, unwatched.model.state_dict()[name]), name
    assert set(watched.shown) <= (watched.update(batches[0]) | signs).keys()


def test_padding_teaches_nothing():
    trainer = make(sizes={"history": 2}, horizon=3)
    batch = linear_batch(trainer.window)
    targets = objectives.EmbeddingTargets(random_directions(4, 8, torch.Generator().manual_seed(0)))
    padded = ~batch.valid
    changed = Batch(**(vars(batch) | {"action": batch.action + padded[..., None] * 100.0}))
    losses = [
        objectives.jepa_loss(trainer.model, trainer.settings, each, targets)[0].item()
        for each in (batch, changed)
    ]
    assert padded[:, 1:].any()
    assert losses[0] == losses[1]


def test_targets_of_an_average_have_no_gradient_and_follow_slowly():
    trainer = make(predicts_average=True, target_rate=0.25, sigreg_coefficient=0.1)
    before = copy.deepcopy(trainer.target_encoder.state_dict())
    trainer.update(linear_batch(trainer.window))
    for name, parameter in trainer.target_encoder.named_parameters():
        assert parameter.grad is None
        latest = dict(trainer.model.encoder.named_parameters())[name]
        torch.testing.assert_close(parameter, before[name].lerp(latest, 0.25))


def test_the_same_seed_gives_the_same_weights_and_a_checkpoint_goes_on(tmp_path):
    settings = {"predicts_average": True, "sigreg_coefficient": 0.1, "average_fraction": 0.1}
    straight, stopped = (make(sizes={"history": 2}, seed=4, **settings) for _ in range(2))
    batches = [linear_batch(straight.window, seed=seed) for seed in range(6)]
    for batch in batches:
        straight.update(batch)
    for batch in batches[:3]:
        stopped.update(batch)
    save_checkpoint(tmp_path, stopped, {"env_steps": 3})
    resumed = load_checkpoint(tmp_path).trainer()
    assert isinstance(resumed, JepaTrainer)
    for batch in batches[3:]:
        resumed.update(batch)
    for name, value in straight.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    for name, value in straight.averaged_model.state_dict().items():
        assert torch.equal(value, resumed.averaged_model.state_dict()[name]), name


def test_a_gradient_that_is_not_finite_changes_no_weights():
    trainer = make()
    trainer.update(linear_batch(trainer.window))
    before = copy.deepcopy(trainer.model.state_dict())
    batch = linear_batch(trainer.window)
    huge = Batch(**(vars(batch) | {"action": torch.full_like(batch.action, torch.inf)}))
    with pytest.raises(DivergenceError, match="training diverged at update 1: the gradient is not finite"):
        trainer.update(huge)
    assert all(torch.equal(value, before[name]) for name, value in trainer.model.state_dict().items())
    assert trainer.update(batch)["grad_norm"].isfinite()


def test_a_window_of_another_length_is_refused():
    with pytest.raises(ValueError, match="batch of 3 steps: this trainer learns from 4"):
        make(sizes={"history": 2}, horizon=3).update(linear_batch(3))
    with pytest.raises(ConfigError, match="sigreg_coefficient=-1"):
        TrainerSettings(sigreg_coefficient=-1.0)


def test_straightening_is_the_cosine_of_real_changes_alone():
    straight = torch.arange(4.0)[None, :, None] * torch.tensor([1.0, 2.0])
    corner = torch.tensor([[[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [1.0, 1.0]]])
    valid = torch.tensor([[True, True, True], [True, True, False]])
    both = torch.cat([straight, corner])
    assert objectives.straightening_loss(both, valid).item() == pytest.approx(-2 / 3)
    assert objectives.straightening_loss(straight, valid[:1]).item() == pytest.approx(-1)
