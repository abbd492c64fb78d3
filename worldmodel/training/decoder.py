"""A decoder, trained apart on embeddings that stay as they are, and kept with what it belongs to."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from worldmodel.files import committed_file, sha256, write_json
from worldmodel.model import ImageDecoder

WEIGHTS_FILE, RECORD_FILE = "decoder.safetensors", "decoder.json"
_FORMAT = 1
_BATCH_SIZE, _LEARNING_RATE = 64, 2e-3


def fit_decoder(
    embeddings: Float[Tensor, "image embedding"],
    images: UInt8[Tensor, "image 3 height width"],
    *,
    num_updates: int,
    seed: int,
    on_update: Callable[[int, float], None] = lambda done, loss: None,
) -> ImageDecoder:
    """Learn to paint images from their embeddings, by the squared error of pixels.

    Weights and batches depend on `seed` alone. `on_update` hears of each update and its loss.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        decoder = ImageDecoder(embeddings.shape[1], images.shape[-1])
    decoder.set_statistics(embeddings, images)
    optimizer = torch.optim.Adam(decoder.parameters(), lr=_LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_updates)
    chance = torch.Generator().manual_seed(seed)
    for update in range(num_updates):
        rows = torch.randint(len(images), (_BATCH_SIZE,), generator=chance)
        loss = (decoder(embeddings[rows]) - images[rows].float() / 255).square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        on_update(update + 1, loss.item())
    return decoder.eval()


def save_decoder(directory: Path, decoder: ImageDecoder, identity: Mapping[str, Any]) -> None:
    """Write `decoder.safetensors` and `decoder.json`; `identity` is JSON that says what it belongs to.

    Errors: `OSError` or `SafetensorError`; an earlier decoder may be lost.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with committed_file(directory / WEIGHTS_FILE) as temporary:
        save_file(decoder.state_dict(), temporary)
    record = {"format": _FORMAT, "identity": dict(identity), "sha256": sha256(directory / WEIGHTS_FILE)}
    write_json(directory / RECORD_FILE, record)


def load_decoder(
    directory: Path, identity: Mapping[str, Any], *, embedding_dim: int, image_size: int
) -> ImageDecoder | None:
    """The decoder in a directory; None where there is none, a damaged one, or one of another `identity`."""
    try:
        record = json.loads((directory / RECORD_FILE).read_text())
        expected = {"format": _FORMAT, "identity": dict(identity), "sha256": sha256(directory / WEIGHTS_FILE)}
        if record != expected:
            return None
        decoder = ImageDecoder(embedding_dim, image_size)
        decoder.load_state_dict(load_file(directory / WEIGHTS_FILE))
    except (OSError, ValueError, SafetensorError, RuntimeError):
        return None
    return decoder.eval()
