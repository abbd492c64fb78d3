"""The decoder of a trained run, which shows what it imagines: kept beside it, or trained first."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor

from worldmodel.analysis import latents_of
from worldmodel.apps.progress import ProgressDisplay, console
from worldmodel.apps.trained import TrainedRun
from worldmodel.data import Episode
from worldmodel.model import ImageDecoder, LatentModel
from worldmodel.training import fit_decoder, load_decoder, save_decoder


def open_decoder(
    run: TrainedRun,
    settings: dict[str, Any],
    source: dict[str, Any],
    episodes: Callable[[], Iterable[Episode]],
) -> ImageDecoder:
    """The decoder that is kept beside the run; where there is none of these weights, one is trained and kept.

    - `settings`: `images`, `updates` and `seed`, of `configs/imagine.yaml`.
    - `source`: JSON that says where its `episodes` come from, which are asked for only if they are needed.
    """
    identity = {"weights": run.checkpoint.fingerprint, **source, **settings}
    size = run.model.size
    kept = load_decoder(run.directory, identity, embedding_dim=size.latent_dim, image_size=size.image_size)
    if kept is not None:
        return kept
    embeddings, images = _pairs(run.model, episodes(), settings["images"])
    with ProgressDisplay(f"decoder {run.task}", settings["updates"], "updates") as display:
        decoder = fit_decoder(
            embeddings,
            images,
            num_updates=settings["updates"],
            seed=settings["seed"],
            on_update=lambda done, loss: display.update(done, {"loss": f"{loss:.5f}"}),
        )
    try:
        save_decoder(run.directory, decoder, identity)
    except (OSError, SafetensorError) as error:
        console.print(f"the decoder cannot be kept in {run.directory}, and is not: {error}", style="yellow")
    return decoder


def _pairs(model: LatentModel, episodes: Iterable[Episode], num_images: int) -> tuple[Tensor, Tensor]:
    """Embeddings (image, embedding) and images (image, 3, H, W) of the first episodes that have so many."""
    embeddings: list[Tensor] = []
    images: list[np.ndarray] = []
    for episode in episodes:
        embeddings.append(model.layout.current(latents_of(model, episode)))
        images.append(episode.observation["pixels"])
        if sum(map(len, images)) >= num_images:
            break
    # A clone: what was made in inference mode has no place in a gradient.
    return torch.cat(embeddings)[:num_images].clone(), torch.from_numpy(np.concatenate(images)[:num_images])
