import pytest

from planners import PLANNERS


@pytest.fixture(params=sorted(PLANNERS))
def name(request) -> str:
    """Every planner there is: a new one is tested by being listed in PLANNERS."""
    return request.param
