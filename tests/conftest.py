"""What every folder of tests shares."""

import os

# Of the processes that tests start, too: small tensors are slower on many threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch


@pytest.fixture(autouse=True)
def repeatable_torch():
    """The same draws in whatever order tests run; one thread, since small tensors are slower on many."""
    torch.manual_seed(0)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_model():
    """A function that builds a small world model whose weights depend on the seed alone."""
    from worldmodel.model import WorldModel, WorldModelSize

    def build(*, seed: int = 0, **sizes) -> WorldModel:
        small = {"state_dim": 3, "action_dim": 2, "latent_dim": 16, "hidden_dim": 32, "encoder_dim": 32}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return WorldModel(WorldModelSize(**(small | {"num_bins": 41} | sizes)))

    return build


@pytest.fixture(scope="session")
def trained_looking():
    """A function that gives every weight of a model a value, so that no head is zero any more."""

    def shake(model: torch.nn.Module, *, seed: int = 0, std: float = 0.3) -> torch.nn.Module:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(std * torch.randn(parameter.shape, generator=generator))
        return model

    return shake
