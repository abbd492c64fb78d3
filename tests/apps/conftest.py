"""One trained run that many tests look at; nobody may change it."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import toy_tasks

from worldmodel.apps.cli import main


@pytest.fixture(scope="session", autouse=True)
def no_terminal_control():
    """Children are told where the toy tasks and this checkout are, and that nobody watches."""
    here = Path(__file__).parent
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{here}{os.pathsep}{here.parents[1]}")
        patch.setenv("TERM", "dumb")
        yield


@pytest.fixture(scope="session")
def point_run(tmp_path_factory) -> Path:
    """A run folder of the point, trained for a moment."""
    run_dir = tmp_path_factory.mktemp("point") / "run"
    arguments = ["train", f"task={toy_tasks.POINT}", f"run_dir={run_dir}", *toy_tasks.TINY_TRAINING]
    assert main(arguments) == 0
    return run_dir


@pytest.fixture
def refused(capsys) -> Callable[..., str]:
    """Run a command that must fail as a user's mistake does; returns its one line."""

    def run(*arguments: str) -> str:
        capsys.readouterr()
        code = main(list(arguments))
        printed = capsys.readouterr().err
        assert code == 2, (code, printed)
        assert re.fullmatch(r"worldmodel: [^\n]+\n", printed), printed
        assert "Traceback" not in printed
        return printed

    return run
