"""One optimizer step after another: batches in, a better model out."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from worldmodel.data import Batch
from worldmodel.errors import ConfigError, DivergenceError
from worldmodel.model import Acceleration, LatentModel
from worldmodel.training import objectives, regularizers
from worldmodel.training.augmentation import jitter_hues
from worldmodel.training.processes import ALONE, Processes
from worldmodel.training.random_targets import RandomTargets
from worldmodel.training.settings import TrainerSettings

Function = TypeVar("Function", bound=Callable[..., object])


class Trainer(ABC):
    """Owns the optimizers, target networks and chance of training a model.

    `averaged_model` is what is judged and kept: an average of the weights that spans a fraction of the
    updates so far (polynomial-decay averaging: Shamir and Zhang 2013, section 4). Single updates move a
    policy back and forth between the starts that it solves; their average does not.
    Same model, batches and seed give the same weights, to the bit on CPU.

    `processes`: those that make each update together. Each is given its part of the batch and draws the
    chance of all of it, so that all come to the same weights: to rounding those of one alone.

    Subclasses fill `optimizers` and `targets` (what else is saved), by names that stay.
    """

    shown: tuple[str, ...] = ("loss",)  # the metrics that people watch
    model: LatentModel
    averaged_model: LatentModel

    def __init__(
        self, model: LatentModel, settings: TrainerSettings, *, seed: int, processes: Processes = ALONE
    ) -> None:
        self.model = model
        self.settings = settings
        self.processes = processes
        self.num_updates = 0
        self.averaged_model = copy.deepcopy(model).requires_grad_(False)
        # Observations are normalised alike in both; this part is not trained.
        self.averaged_model.encoder.share_statistics(model.encoder)  # type: ignore[arg-type]
        self.generator = torch.Generator().manual_seed(seed)
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self.targets: dict[str, nn.Module] = {}
        self.target_encoder: nn.Module | None = None
        self.random_targets: RandomTargets | None = None

    @property
    @abstractmethod
    def window(self) -> int:
        """Steps of the windows that it learns from."""

    @abstractmethod
    def accelerate(self, acceleration: Acceleration) -> None:
        """Compute the losses so: the same, to rounding."""

    @abstractmethod
    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One optimizer step on the model, from windows of `window` steps.

        Returns metrics as scalar tensors: reading one waits for the device, so the caller reads few. Their
        mean over the processes is that of the whole batch.
        """

    @torch.no_grad()
    def diagnose(self, batch: Batch) -> dict[str, Tensor]:
        """Metrics that cost more than an update should, asked for now and then.

        Signs of collapse: std, rank and SIGReg's value of the embeddings of a batch, whatever the loss. Takes
        no chance from training: the same embeddings have the same value.
        """
        embeddings = self.model.embed({key: value[:, 0] for key, value in batch.observation.items()})
        seen = embeddings[:, : self.model.size.latent_dim]  # the task, which may follow, does not spread
        return dict(regularizers.signs_of_collapse(self.processes.gathered(seen)))

    def numbers(self) -> dict[str, Any]:
        """Further state to save."""
        return {}

    def restore_numbers(self, numbers: Mapping[str, Any]) -> None:  # noqa: B027  (there may be none)
        """Go on from what `numbers` gave."""

    def _groups(self, *, apart: Iterable[nn.Parameter] = ()) -> list[dict[str, Any]]:
        """The parameters for an optimizer: the encoder with a rate of its own, the rest; none of `apart`."""
        encoder = list(self.model.encoder.parameters())
        left_out = {id(parameter) for parameter in (*encoder, *apart)}
        rest = [parameter for parameter in self.model.parameters() if id(parameter) not in left_out]
        if self.random_targets is not None:
            rest += self.random_targets.guess.parameters()
        return [{"params": encoder, "lr": self.settings.encoder_learning_rate}, {"params": rest}]

    def _make_targets(self) -> None:
        """What embeddings are to foresee beside themselves: an average of earlier ones, random features."""
        if self.settings.predicts_average:
            target = copy.deepcopy(self.model.encoder).requires_grad_(False)
            target.share_statistics(self.model.encoder)  # type: ignore[arg-type]
            self.target_encoder = self.targets["target_encoder"] = target
        if self.settings.random_target_coefficient:
            size = self.model.size
            if "pixels" not in size.observes:
                raise ConfigError(
                    f"training.random_target_coefficient={self.settings.random_target_coefficient}: it is of "
                    "images, which this model does not see; give 0, or model.observes=[pixels]"
                )
            random_targets = RandomTargets(size.image_size, size.latent_dim)
            self.random_targets = random_targets.to(next(self.model.parameters()).device)
            self.targets["random_targets"] = self.random_targets

    def _accelerated(self, acceleration: Acceleration, function: Function) -> Function:
        device = next(self.model.parameters()).device
        # What waits for other processes cannot be part of a CUDA graph.
        way = acceleration.of if self.processes.count == 1 else acceleration.fused
        return way(function, device)

    def _noise(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Standard normal noise for this part, drawn on the CPU so that every device sees the same."""
        whole = (shape[0] * self.processes.count, *shape[1:])
        return self.processes.cut(torch.randn(whole, generator=self.generator)).to(like)

    def _embedding_targets(self, batch: Batch, features: Tensor | None) -> objectives.EmbeddingTargets:
        dim, number = self.model.size.latent_dim, self.settings.num_directions
        directions = regularizers.random_directions(number, dim, self.generator).to(batch.action)
        return objectives.EmbeddingTargets(directions, self.target_encoder, self.random_targets, features)

    def _features(self, batch: Batch) -> Tensor | None:
        """What the random targets see in the images as they are, in units of the first batch."""
        if self.random_targets is None:
            return None
        pixels = batch.observation["pixels"]
        if self.num_updates == 0:
            self.random_targets.fit(self.processes.gathered(pixels))
        return self.random_targets.features(pixels)

    def _prepared(self, batch: Batch) -> Batch:
        """The batch as it is learned from: of the right length, its images in other colours if so set."""
        if batch.horizon != self.window:
            raise ValueError(f"batch of {batch.horizon} steps: this trainer learns from {self.window}")
        if self.settings.hue_jitter > 0 and "pixels" in batch.observation:
            batch = jitter_hues(batch, self.settings.hue_jitter, self.generator, self.processes)
        return batch

    def _step(self, optimizer: torch.optim.Optimizer, loss: Tensor) -> Tensor:
        """Backward, clip, step; returns the gradient norm before clipping. Errors: `DivergenceError`."""
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self.processes.average_gradients(parameters)
        norm = nn.utils.clip_grad_norm_(parameters, self.settings.max_grad_norm)
        if not norm.isfinite():  # before it reaches the weights
            raise diverged(self, "the gradient is not finite")
        optimizer.step()
        return norm

    @torch.no_grad()
    def _average(self, *targets: tuple[nn.Module | None, nn.Module]) -> None:
        """Move target networks, each beside what it follows, and the averaged model towards the model."""
        # Short while much is to be learned, long when little changes but for the noise; without the weights
        # from before the first update.
        average_rate = 1 / (1 + self.settings.average_fraction * self.num_updates)
        rate = self.settings.target_rate
        pairs = [(target, module, rate) for target, module in targets if target is not None]
        for average, latest, rate in (*pairs, (self.averaged_model, self.model, average_rate)):
            torch._foreach_lerp_(list(average.parameters()), list(latest.parameters()), rate)


def diverged(trainer: Trainer, sign: str) -> DivergenceError:
    """The error for training that made no sense any more, by this sign of it."""
    return DivergenceError(
        f"training diverged at update {trainer.num_updates}: {sign}. Lower training.learning_rate="
        f"{trainer.settings.learning_rate}; the last checkpoint is still sound"
    )
