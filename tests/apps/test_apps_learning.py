"""That the defaults learn: minutes, so run by `make test-slow`."""

import pytest

from worldmodel.apps.cli import main
from worldmodel.training import read_metrics


@pytest.mark.slow
def test_the_demo_learns_to_swing_up_the_pole(tmp_path):
    run_dir = tmp_path / "run"
    assert main(["train", "experiment=demo", "task=cartpole-swingup", f"run_dir={run_dir}"]) == 0
    returns = [record["eval/return"] for record in read_metrics(run_dir) if "eval/return" in record]
    assert max(returns) >= 700
