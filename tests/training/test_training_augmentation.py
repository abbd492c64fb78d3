"""Images in other colours: what turns, what stays, and what a model makes of it."""

import pytest
import torch

from worldmodel.data import Batch
from worldmodel.errors import ConfigError
from worldmodel.model import LatentModel, WorldModelSize
from worldmodel.training import JepaTrainer, TrainerSettings
from worldmodel.training.augmentation import jitter_hues, turn_hues


def picture(*colours):
    """One row of pixels (3, 1, W)."""
    return torch.tensor(colours, dtype=torch.uint8).T[:, None]


def random_batch(num=4, horizon=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return Batch(
        observation={
            "pixels": torch.randint(0, 256, (num, horizon + 1, 3, 16, 16), generator=generator).to(
                torch.uint8
            )
        },
        action=torch.rand(num, horizon, 2, generator=generator) * 2 - 1,
        reward=torch.zeros(num, horizon),
        terminated=torch.zeros(num, horizon, dtype=torch.bool),
        valid=torch.ones(num, horizon, dtype=torch.bool),
        extra={},
    )


def test_a_third_of_a_turn_makes_red_green_and_leaves_greys():
    turned = turn_hues(picture((200, 10, 20), (90, 90, 90))[None], torch.tensor([1 / 3]))
    assert torch.equal(turned[0], picture((20, 200, 10), (90, 90, 90)))


def test_a_whole_turn_changes_nothing():
    images = random_batch().observation["pixels"]
    assert torch.equal(turn_hues(images, torch.ones(images.shape[:2])), images)


def test_what_no_pixel_can_show_is_cut_off():
    assert torch.equal(
        turn_hues(picture((255, 255, 0)), torch.tensor(0.5))[:, 0, 0], torch.tensor([85, 85, 255])
    )


def test_each_image_of_a_window_gets_its_own_colours():
    batch = random_batch(num=1)
    image = batch.observation["pixels"][:, :1]
    same = image.expand(-1, 4, -1, -1, -1)
    batch.observation["pixels"] = same
    jittered = jitter_hues(batch, 1.0, torch.Generator().manual_seed(0)).observation["pixels"][0]
    assert len({tuple(each.flatten().tolist()) for each in jittered}) == 4
    assert torch.equal(batch.observation["pixels"], same)  # the batch that was given stays


def test_a_trainer_jitters_where_it_is_told_to_and_repeats_itself():
    def weights(hue_jitter, seed=0):
        torch.manual_seed(0)
        size = WorldModelSize(
            state_dim=0, image_size=16, action_dim=2, latent_dim=8, hidden_dim=16, encoder_dim=16,
            observes=("pixels",), latent_norm="none", predicts_return=False,
        )  # fmt: skip
        settings = TrainerSettings(hue_jitter=hue_jitter, sigreg_coefficient=0.05)
        trainer = JepaTrainer(LatentModel(size), settings, seed=seed)
        trainer.update(random_batch())
        return torch.cat([p.detach().flatten() for p in trainer.model.parameters()])

    assert torch.equal(weights(1.0), weights(1.0))
    assert not torch.equal(weights(1.0), weights(0.0))


@pytest.mark.parametrize("hue_jitter", [-0.1, 1.5])
def test_jitter_beyond_the_wheel_is_refused(hue_jitter):
    with pytest.raises(ConfigError, match="hue_jitter"):
        TrainerSettings(hue_jitter=hue_jitter)
