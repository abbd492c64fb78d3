import pytest
import torch

from planners import PLANNERS


@pytest.fixture(params=sorted(PLANNERS))
def name(request) -> str:
    """Every planner there is: a new one is tested by being listed in PLANNERS."""
    return request.param


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
