"""Compiled and not, what is learned and imagined is the same."""

import os
import shutil
import subprocess
import sys

import pytest

# Without the type checks of the test run, which torch.compile cannot look through.
SCRIPT = """
import copy
import numpy as np, torch
from made_linear import linear_batch
from worldmodel.apps.foresight import LearnedForesight
from worldmodel.model import WorldModel, WorldModelSize
from worldmodel.training import Trainer, TrainerSettings

torch.set_num_threads(1)
torch.manual_seed(0)
size = WorldModelSize(
    state_dim=3, action_dim=2, latent_dim=16, hidden_dim=32, encoder_dim=32, num_bins=41, num_q=3,
    predicts_continuation=True,
)
model = WorldModel(size)
settings = TrainerSettings(num_td_steps=2, policy_every=2, learning_rate=1e-3)
eager, compiled = (Trainer(copy.deepcopy(model), settings, seed=0) for _ in range(2))
compiled.compile()
for seed in range(4):
    expected = eager.update(linear_batch(settings.window, seed=seed))
    found = compiled.update(linear_batch(settings.window, seed=seed))
    assert expected.keys() == found.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=2e-3, atol=2e-4, msg=name)
assert float(expected["policy_loss"]) != 0
for name, value in eager.model.state_dict().items():
    torch.testing.assert_close(compiled.model.state_dict()[name], value, rtol=2e-2, atol=2e-4, msg=name)

observation = {"state": np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)}
noise = torch.randn(2, 4, 3, 2)
with torch.no_grad():
    plain = LearnedForesight(eager.model, discount=0.9).outlook(observation)
    fused = LearnedForesight(eager.model, discount=0.9, is_compiled=True).outlook(observation)
    candidates = plain.propose(noise)
    torch.testing.assert_close(fused.propose(noise), candidates)
    torch.testing.assert_close(fused.score(candidates), plain.score(candidates), rtol=1e-4, atol=1e-5)
print("same")
"""


@pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_training_and_planning_are_those_of_eager_torch(request):
    path = os.pathsep.join(
        [str(request.config.rootpath), str(request.config.rootpath / "tests" / "training")]
    )
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True
    )
    assert done.stdout.strip() == "same", done.stderr[-2000:]
