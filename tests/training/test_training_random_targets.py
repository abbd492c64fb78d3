"""Features of a network that never learns, as targets: what is small is held too, and everything goes on."""

import numpy as np
import pytest
import torch

from worldmodel.data import Batch
from worldmodel.errors import ConfigError
from worldmodel.model import LatentModel, WorldModelSize, scaled
from worldmodel.training import JepaTrainer, TrainerSettings, load_checkpoint, save_checkpoint
from worldmodel.training.random_targets import RandomTargets

SIDE, WINDOW = 32, 3
SIZE = {"state_dim": 0, "action_dim": 1, "latent_dim": 16, "hidden_dim": 32, "image_size": SIDE}


def bar_and_dot(number: int, seed: int) -> tuple[Batch, np.ndarray]:
    """Windows in which actions move a bar along the picture's edge, and a dot rests; and where the dot is."""
    chance = np.random.default_rng(seed)
    actions = chance.integers(-2, 3, size=(number, WINDOW))
    moves = np.pad(actions.cumsum(1), ((0, 0), (1, 0)))
    bars = np.clip(chance.integers(0, SIDE - 10, size=(number, 1)) + 2 * moves, 0, SIDE - 10)
    dots = chance.integers(0, SIDE - 12, size=(number, 2))
    pixels = np.full((number, WINDOW + 1, 3, SIDE, SIDE), 128, dtype=np.uint8)
    for window, step in np.ndindex(number, WINDOW + 1):
        x, (i, j) = bars[window, step], dots[window]
        pixels[window, step, :, -8:, x : x + 10] = 255
        pixels[window, step, 0, i : i + 3, j : j + 3] = 0
    shape = (number, WINDOW)
    batch = Batch(
        observation={"pixels": torch.from_numpy(pixels)},
        action=torch.from_numpy(actions[..., None] / 2).float(),
        reward=torch.zeros(shape),
        terminated=torch.zeros(shape, dtype=torch.bool),
        valid=torch.ones(shape, dtype=torch.bool),
        extra={},
    )
    return batch, dots


def make(seed: int = 0, *, sizes=None, **settings) -> JepaTrainer:
    torch.manual_seed(0)
    size = WorldModelSize(
        **(SIZE | {"observes": ("pixels",), "latent_norm": "none", "predicts_return": False} | (sizes or {}))
    )
    rates = {"learning_rate": 3e-3, "encoder_learning_rate": 3e-3, "sigreg_coefficient": 0.05}
    return JepaTrainer(
        LatentModel(size), TrainerSettings(**(rates | {"horizon": WINDOW} | settings)), seed=seed
    )


def r2_of_the_dot(trainer: JepaTrainer) -> float:
    def of(seed):
        batch, dots = bar_and_dot(400, seed)
        with torch.no_grad():
            embedding = trainer.model.embed({"pixels": batch.observation["pixels"][:, 0]}).numpy()
        return np.concatenate([embedding, np.ones((400, 1))], axis=1), dots

    (x, y), (x_test, y_test) = of(100), of(101)
    weights = np.linalg.lstsq(x, y, rcond=None)[0]
    return 1 - ((x_test @ weights - y_test) ** 2).mean() / y_test.var(0).mean()


def test_with_them_embeddings_hold_what_is_small():
    r2 = {}
    for coefficient in (0.0, 4.0):
        trainer = make(inverse_coefficient=1.0, random_target_coefficient=coefficient)
        for update in range(100):
            trainer.update(bar_and_dot(64, update)[0])
        r2[coefficient] = r2_of_the_dot(trainer)
    assert r2[4.0] > r2[0.0] + 0.1, r2


def test_features_are_in_units_of_the_images_they_were_fitted_to():
    targets, (batch, _) = RandomTargets(SIDE, 16), bar_and_dot(64, 0)
    pixels = batch.observation["pixels"]
    targets.fit(pixels)
    features = targets.features(pixels)
    assert features.shape == (64, WINDOW + 1, targets.guess.out_features)
    rows = features.flatten(0, 1)
    torch.testing.assert_close(rows.mean(0), torch.zeros(rows.shape[1]), atol=1e-3, rtol=0)
    moving = rows.std(0) > 0.5
    torch.testing.assert_close(rows.std(0)[moving], torch.ones(int(moving.sum())), atol=1e-3, rtol=0)
    assert moving.float().mean() > 0.9
    assert not features.requires_grad
    assert [name for name, each in targets.named_parameters() if each.requires_grad] == [
        "guess.weight",
        "guess.bias",
    ]


def test_features_are_the_strength_and_the_centre_of_what_filters_see():
    targets = RandomTargets(SIDE, 16)
    pixels = torch.full((2, 3, SIDE, SIDE), 100, dtype=torch.uint8)
    pixels[1, :, 8:16, 24:32] = 200  # right of the middle, above it
    targets.mean_image.copy_(scaled(pixels[0]))
    with torch.no_grad():
        targets.filters.weight.fill_(1.0)
    nothing, spot = targets.features(pixels).unflatten(-1, (3, 2, -1))
    assert (nothing == 0).all()
    strength, x, y = spot[:, 0, 0].tolist()  # where it is brighter; it is darker nowhere
    assert (spot[:, 1] == 0).all()
    # Patches of 4 x 4 pixels, 2 apart. Rows of the spot in 3 to 8: 1, 3, 4, 4, 3, 1; columns in 11 to 15: so,
    # but for the last.
    assert strength == pytest.approx(3 * 100 / 255 * 16 * 15, rel=1e-4)
    assert x == pytest.approx(2 / 15 * (11 * 1 + 12 * 3 + 13 * 4 + 14 * 4 + 15 * 3) / 15 - 1, abs=1e-3)
    assert y == pytest.approx(2 / 15 * 5.5 - 1, abs=1e-3)


def test_colours_that_are_jittered_are_not_asked_for():
    """Features are of the images as they are: to tell them from others, embeddings need no hue."""
    plain, jittered = (make(random_target_coefficient=1.0, hue_jitter=hue) for hue in (0.0, 1.0))
    batch, _ = bar_and_dot(8, 0)
    assert torch.equal(plain._features(batch), jittered._features(batch))


def test_what_is_random_is_kept_and_a_checkpoint_goes_on_to_the_bit(tmp_path):
    straight, stopped = (make(seed=4, random_target_coefficient=0.5) for _ in range(2))
    batches = [bar_and_dot(8, seed)[0] for seed in range(4)]
    drawn = straight.random_targets.filters.weight.clone()
    for batch in batches:
        straight.update(batch)
    for batch in batches[:2]:
        stopped.update(batch)
    save_checkpoint(tmp_path, stopped, {"env_steps": 2})
    torch.manual_seed(9)
    resumed = load_checkpoint(tmp_path).trainer()
    for batch in batches[2:]:
        resumed.update(batch)
    assert torch.equal(straight.random_targets.filters.weight, drawn)
    assert not torch.equal(
        straight.random_targets.guess.weight, make(random_target_coefficient=0.5).random_targets.guess.weight
    )
    for before, after in ((straight.model, resumed.model), (straight.random_targets, resumed.random_targets)):
        for name, value in before.state_dict().items():
            assert torch.equal(value, after.state_dict()[name]), name


def test_a_model_without_images_is_refused():
    with pytest.raises(ConfigError, match=r"random_target_coefficient=0.5: it is of images.*model.observes"):
        make(sizes={"observes": ("state",), "state_dim": 3}, random_target_coefficient=0.5)
