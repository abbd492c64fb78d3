"""A decoder learns apart, is the same every time, and is found again only by what it belongs to."""

import json

import pytest
import torch

from worldmodel.training import fit_decoder, load_decoder, save_decoder

IDENTITY = {"weights": "abc", "updates": 3, "seed": 0}


def squares(num_images, seed=0):
    """A bright square of 4 x 4 pixels on black; the embedding says where it is."""
    chance = torch.Generator().manual_seed(seed)
    corners = torch.randint(13, (num_images, 2), generator=chance)
    images = torch.zeros(num_images, 3, 16, 16, dtype=torch.uint8)
    for image, (row, column) in zip(images, corners.tolist(), strict=True):
        image[:, row : row + 4, column : column + 4] = 255
    return corners / 12, images


def test_it_learns_to_paint_what_an_embedding_says():
    embeddings, images = squares(400)
    losses = []
    decoder = fit_decoder(
        embeddings, images, num_updates=250, seed=0, on_update=lambda done, loss: losses.append((done, loss))
    )
    assert [done for done, _ in losses] == list(range(1, 251))
    new_embeddings, new = squares(100, seed=1)
    truth = new.float() / 255
    error = (decoder.paint(new_embeddings).float() / 255 - truth).square().mean()
    error_of_the_mean = (truth - images.float().mean(0) / 255).square().mean()
    assert error < 0.3 * error_of_the_mean
    assert not decoder.training


def test_it_depends_on_the_seed_alone_and_draws_from_no_other_chance():
    embeddings, images = squares(40)

    def fitted(seed):
        return fit_decoder(embeddings, images, num_updates=3, seed=seed).state_dict()

    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = fitted(0)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    again, other = fitted(0), fitted(1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


@pytest.fixture
def kept(tmp_path):
    """A folder with a decoder, and the decoder."""
    decoder = fit_decoder(*squares(40), num_updates=3, seed=0)
    save_decoder(tmp_path / "run", decoder, IDENTITY)
    return tmp_path / "run", decoder


def load(folder, identity=IDENTITY, **sizes):
    return load_decoder(folder, identity, **({"embedding_dim": 2, "image_size": 16} | sizes))


def test_it_is_the_same_when_it_is_loaded(kept):
    folder, decoder = kept
    embedding = torch.rand(5, 2)
    assert torch.equal(load(folder).paint(embedding), decoder.paint(embedding))
    assert sorted(path.name for path in folder.iterdir()) == ["decoder.json", "decoder.safetensors"]


def test_one_of_other_weights_or_settings_is_not_used(kept):
    folder, _ = kept
    for change in ({"weights": "abd"}, {"updates": 4}, {"dataset": "x"}):
        assert load(folder, IDENTITY | change) is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 1}', "null"])
def test_a_damaged_record_is_none(kept, text):
    folder, _ = kept
    (folder / "decoder.json").write_text(text)
    assert load(folder) is None


def test_damaged_weights_are_none(kept):
    folder, _ = kept
    path = folder / "decoder.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert load(folder) is None
    path.unlink()
    assert load(folder) is None


def test_weights_of_another_size_are_none(kept):
    folder, _ = kept
    assert load(folder, embedding_dim=3) is None
    assert load(folder, image_size=24) is None


def test_nothing_there_is_none(tmp_path):
    assert load(tmp_path / "nowhere") is None


def test_a_later_decoder_takes_the_place_of_an_earlier_one(kept):
    folder, _ = kept
    other = fit_decoder(*squares(40), num_updates=3, seed=9)
    save_decoder(folder, other, IDENTITY | {"seed": 9})
    assert load(folder) is None
    assert torch.equal(load(folder, IDENTITY | {"seed": 9}).paint(torch.ones(2)), other.paint(torch.ones(2)))
    assert json.loads((folder / "decoder.json").read_text())["identity"]["seed"] == 9
