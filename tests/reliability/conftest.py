"""Where children find the toy tasks, and this checkout."""

import os
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PATHS = [str(HERE), str(HERE.parent / "apps"), str(HERE.parents[1])]
sys.path += [path for path in PATHS if path not in sys.path]  # before the tests are imported


@pytest.fixture(scope="session", autouse=True)
def children_find_everything():
    """Also those that a server of forks makes, which begins with the environment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(PATHS))
        patch.setenv("TERM", "dumb")
        yield
