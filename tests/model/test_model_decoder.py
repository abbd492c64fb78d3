import pytest
import torch

from worldmodel.model import ImageDecoder


@pytest.mark.parametrize("image_size", [16, 24, 64])
@pytest.mark.parametrize("batch", [(), (2,), (2, 3)])
def test_any_leading_axes_and_sizes(image_size, batch):
    decoder = ImageDecoder(5, image_size)
    assert decoder(torch.rand(*batch, 5)).shape == (*batch, 3, image_size, image_size)


def test_what_is_painted_is_an_image_whatever_the_embedding():
    decoder = ImageDecoder(5, 16)
    for parameter in decoder.parameters():
        torch.nn.init.normal_(parameter)
    painted = decoder.paint(1e3 * torch.randn(20, 5))
    assert painted.dtype == torch.uint8
    assert (painted.min(), painted.max()) == (0, 255)


def test_a_new_one_paints_about_the_mean_image_at_any_scale_of_embeddings():
    images = torch.randint(256, (50, 3, 16, 16), dtype=torch.uint8)
    embeddings = 1000 + 100 * torch.randn(50, 5)
    embeddings[:, 4] = 7.0  # never varies
    decoder = ImageDecoder(5, 16)
    decoder.set_statistics(embeddings, images)
    mean = images.double().mean(0) / 255
    torch.testing.assert_close(decoder.mean_image.double(), mean, atol=1e-6, rtol=0)
    assert (decoder(embeddings) - mean).abs().max() < 0.3


def test_statistics_travel_with_the_weights():
    first, second = ImageDecoder(5, 16), ImageDecoder(5, 16)
    first.set_statistics(torch.randn(9, 5), torch.randint(256, (9, 3, 16, 16), dtype=torch.uint8))
    second.load_state_dict(first.state_dict())
    embedding = torch.randn(4, 5)
    assert torch.equal(first(embedding), second(embedding))
