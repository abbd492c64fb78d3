"""Errors of what is read out of imagined latents, by hand."""

import numpy as np
import pytest
import torch

from worldmodel.analysis import (
    OpenLoop,
    PictureComparison,
    Readout,
    StateComparison,
    compare_pictures,
    compare_states,
    psnr,
)
from worldmodel.data import Episode
from worldmodel.model import ImageDecoder
from worldmodel.model.layout import Layout

LAYOUT = Layout(embedding_dim=2, action_dim=1, history=2)


def states(**changes):
    arrays = {
        "real": np.array([[[0.0], [1.0], [3.0]], [[0.0], [-1.0], [-3.0]]]),
        "imagined": np.array([[[0.0], [2.0], [3.0]], [[0.0], [-1.0], [-6.0]]]),
    }
    return StateComparison(
        **{name: np.asarray(array, np.float32) for name, array in (arrays | changes).items()}
    )


def test_the_table_of_states():
    one, two = states().table([1, 2])
    std = np.sqrt((1 + 9 + 1 + 9) / 4)
    assert one == pytest.approx(
        {"steps": 1, "observation_error": np.sqrt((1 + 0) / 2) / std, "no_motion_error": 1 / std}
    )
    assert two == pytest.approx(
        {"steps": 2, "observation_error": np.sqrt(9 / 2) / std, "no_motion_error": 3 / std}
    )


def test_motion_counts_each_dimension_in_its_own_std():
    """The first window moves in a small dimension, the second in a large one: by as many stds of it."""
    small = [[0.0, 0.0], [0.01, 0.0], [0.0, 0.0], [0.01, 0.0]]
    large = [[0.0, 0.0], [0.0, 1000.0], [0.0, 0.0], [0.0, 1000.0]]
    still = [[0.0, 0.0]] * 4
    found = states(real=[small, large, still], imagined=[still] * 3).motion()
    assert found[0] == pytest.approx(found[1], rel=1e-5)
    assert found[2] == 0


def test_tables_end_at_the_horizon():
    assert [row["steps"] for row in states().table([0, 1, 2, 3, 100])] == [1, 2]
    mse = np.full(3, 0.1)
    pictures = PictureComparison(imagined=mse, decoded=mse, no_motion=mse)
    assert [row["steps"] for row in pictures.table([0, 1, 2, 3, 100])] == [1, 2]


def test_a_dimension_that_never_moves_does_not_drown_the_others():
    still = np.array([[[0.0, 5.0], [1.0, 5.0], [3.0, 5.0]], [[0.0, 5.0], [-1.0, 5.0], [-3.0, 5.0]]])
    assert states(real=still, imagined=still + 1e-5).table([2])[0]["observation_error"] < 1e-4


def made(windows, latent, imagined):
    return OpenLoop(
        windows=windows, latent=latent, imagined_latent=imagined, latent_error=np.zeros(2, np.float32)
    )


def test_states_are_read_from_the_windows_they_belong_to():
    readout = Readout(weight=2 * torch.eye(5), bias=torch.ones(5), r2=1.0)
    features = [torch.arange(20.0).reshape(4, 5), 100 + torch.arange(20.0).reshape(4, 5)]
    imagined = torch.rand(2, 3, 5)
    found = compare_states(made([(0, 1), (1, 0)], torch.zeros(2, 3, 5), imagined), readout, features)
    np.testing.assert_array_equal(found.real, torch.stack([features[0][1:4], features[1][:3]]).numpy())
    np.testing.assert_allclose(found.imagined, (2 * imagined + 1).numpy())


class Grey(ImageDecoder):
    """Paints one grey: 255 times the first entry of an embedding."""

    def __init__(self):
        super().__init__(2, 16)

    def forward(self, embedding):
        return embedding[..., :1, None, None].expand(*embedding.shape[:-1], 3, 16, 16)


def grey_episode(*greys):
    pixels = np.stack([np.full((3, 16, 16), grey, np.uint8) for grey in greys])
    count = len(greys) - 1
    return Episode(
        observation={"pixels": pixels},
        action=np.zeros((count, 1), np.float32),
        reward=np.zeros(count, np.float32),
        terminated=False,
        truncated=True,
    )


def latent(*newest):
    """Latents whose newest embedding begins with these numbers, and whose older one is of no account."""
    rows = [[9.0, 9.0, value, 0.0, 9.0] for value in newest]
    return torch.tensor(rows)[None]


def test_pictures_are_compared_with_the_real_ones_of_their_step():
    episode = grey_episode(0, 51, 102, 153)
    result = made([(0, 1)], latent(0.2, 0.4, 0.8), latent(0.2, 0.4, 1.0))
    found = compare_pictures(result, Grey(), LAYOUT, [episode])
    np.testing.assert_allclose(found.imagined, [0, 0, 0.4**2], atol=1e-12)
    np.testing.assert_allclose(found.decoded, [0, 0, 0.2**2], atol=1e-12)
    np.testing.assert_allclose(found.no_motion, [0, 0.2**2, 0.4**2], atol=1e-12)
    row = found.table([2])[0]
    assert row["decoded_mse"] == pytest.approx(0.04)
    assert row["decoded_psnr"] == pytest.approx(10 * np.log10(25))
    assert row["imagined_psnr"] == pytest.approx(row["no_motion_psnr"])


def test_equal_pictures_have_a_finite_psnr():
    np.testing.assert_allclose(psnr(np.array([1.0, 0.01, 0.0])), [0, 20, 100])
