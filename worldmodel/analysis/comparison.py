"""What is read out of imagined latents, against what was there: states, and pictures."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from worldmodel.analysis.open_loop import OpenLoop, Row
from worldmodel.analysis.readout import Readout
from worldmodel.data import Episode
from worldmodel.model import ImageDecoder
from worldmodel.model.layout import Layout

_LEAST_MSE = 1e-10  # 100 dB: of pictures that are equal


@dataclass(frozen=True, kw_only=True)
class StateComparison:
    """States over W windows of H steps, before each step and after the last, and as they are imagined."""

    real: Float[np.ndarray, "window horizon_plus_1 feature"]
    imagined: Float[np.ndarray, "window horizon_plus_1 feature"]

    def table(self, steps: Sequence[int]) -> list[Row]:
        """Errors after k steps, for each k in `steps` up to the horizon.

        - `observation_error`: RMSE of what is read out, in standard deviations of each dimension;
        - `no_motion_error`: the same for "nothing moves", which a model has to beat.
        """
        scale = self._scale()
        return [
            {
                "steps": k,
                "observation_error": _rmse((self.real[:, k] - self.imagined[:, k]) / scale),
                "no_motion_error": _rmse((self.real[:, k] - self.real[:, 0]) / scale),
            }
            for k in steps
            if 1 <= k < self.real.shape[1]
        ]

    def motion(self) -> Float[np.ndarray, " window"]:
        """How much happens in each window: the sum of what dimensions spread over time, each in its std."""
        return np.asarray((self.real.std(1) / self._scale()).sum(-1))

    def _scale(self) -> np.ndarray:
        """The std of each dimension."""
        scale = self.real[:, 1:].std((0, 1))
        # In a dimension that never moves, rounding would count as an error of many stds.
        return np.where(scale > 1e-6, scale, 1.0)


@torch.inference_mode()
def compare_states(
    result: OpenLoop, readout: Readout, features: Sequence[Float[Tensor, "time feature"]]
) -> StateComparison:
    """Read states out of imagined latents; `features` are those of each episode."""
    length = result.horizon + 1
    real = torch.stack([features[index][start : start + length] for index, start in result.windows])
    return StateComparison(real=real.numpy(), imagined=readout(result.imagined_latent).numpy())


@dataclass(frozen=True, kw_only=True)
class PictureComparison:
    """Mean squared errors of pixels between 0 and 1, over all windows, after 0 .. H steps.

    - `imagined`: of decoded imagined embeddings;
    - `decoded`: of decoded embeddings of what was seen: the decoder's own error, below which nothing gets;
    - `no_motion`: of the first picture, which a model has to beat.
    """

    imagined: Float[np.ndarray, " horizon_plus_1"]
    decoded: Float[np.ndarray, " horizon_plus_1"]
    no_motion: Float[np.ndarray, " horizon_plus_1"]

    def table(self, steps: Sequence[int]) -> list[Row]:
        """`..._mse` and `..._psnr` (dB) after k steps, for each k in `steps` up to the horizon."""
        errors = {"imagined": self.imagined, "decoded": self.decoded, "no_motion": self.no_motion}
        rows: list[Row] = []
        for k in (k for k in steps if 1 <= k < len(self.imagined)):
            row: Row = {"steps": k}
            for name, mse in errors.items():
                row |= {f"{name}_mse": float(mse[k]), f"{name}_psnr": float(psnr(mse)[k])}
            rows.append(row)
        return rows


def compare_pictures(
    result: OpenLoop, decoder: ImageDecoder, layout: Layout, episodes: Sequence[Episode]
) -> PictureComparison:
    """Decode what is imagined and what was seen of each window."""
    sums = np.zeros((3, result.horizon + 1))
    for window, (index, start) in enumerate(result.windows):
        real = episodes[index].observation["pixels"][start : start + result.horizon + 1]
        guesses = (
            decoder.paint(layout.current(result.imagined_latent[window])).numpy(),
            decoder.paint(layout.current(result.latent[window])).numpy(),
            real[:1],
        )
        sums += [_mse(guess, real) for guess in guesses]
    imagined, decoded, no_motion = sums / len(result.windows)
    return PictureComparison(imagined=imagined, decoded=decoded, no_motion=no_motion)


def psnr(mse: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio in dB; higher is better."""
    return -10 * np.log10(np.maximum(mse, _LEAST_MSE))


def _mse(guess: np.ndarray, real: np.ndarray) -> np.ndarray:
    """Of pictures (time, 3, H, W), at each time."""
    return np.square(guess / 255 - real / 255).mean((1, 2, 3))


def _rmse(errors: np.ndarray) -> float:
    return float(np.sqrt(np.square(errors).mean()))
