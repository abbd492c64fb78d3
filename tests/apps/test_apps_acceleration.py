"""Accelerated or not, what is learned and imagined is the same, to rounding."""

import copy
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
import toy_tasks
from made_linear import linear_batch

from planners import CEM, ICEM, MPPI, PLANNERS, Cubic, PlannerError, White
from worldmodel.apps.build import build_planning_agent
from worldmodel.apps.cli import main
from worldmodel.apps.foresight import LearnedForesight
from worldmodel.apps.outlook import Outlook, RecordedPlanner
from worldmodel.model import Acceleration, WorldModel, WorldModelSize
from worldmodel.training import ReturnTrainer, TrainerSettings

# Without the type checks of the test run, which torch.compile cannot look through.
SCRIPT = """
import copy
import numpy as np, torch
from made_linear import linear_batch
from planners import MPPI
from worldmodel.apps.foresight import LearnedForesight
from worldmodel.apps.outlook import RecordedPlanner
from worldmodel.model import Acceleration, WorldModel, WorldModelSize
from worldmodel.training import ReturnTrainer, TrainerSettings

torch.set_num_threads(1)
torch.manual_seed(0)
size = WorldModelSize(
    state_dim=3, action_dim=2, latent_dim=16, hidden_dim=32, encoder_dim=32, num_bins=41, num_q=3,
    predicts_continuation=True,
)
model = WorldModel(size)
settings = TrainerSettings(num_td_steps=2, policy_every=2, learning_rate=1e-3)
eager, compiled = (ReturnTrainer(copy.deepcopy(model), settings, seed=0) for _ in range(2))
compiled.accelerate(Acceleration(is_compiled=True))
for seed in range(4):
    expected = eager.update(linear_batch(eager.window, seed=seed))
    found = compiled.update(linear_batch(eager.window, seed=seed))
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
    accelerated = LearnedForesight(eager.model, discount=0.9, acceleration=Acceleration(is_compiled=True))
    fused = accelerated.outlook(observation)
    candidates = plain.propose(noise)
    torch.testing.assert_close(fused.propose(noise), candidates)
    scores = fused.score(candidates), plain.score(candidates)
    torch.testing.assert_close(*scores, rtol=1e-4, atol=1e-3)  # bins reach 22026, rounding with them

planner = MPPI(action_dim=2, horizon=3, num_candidates=16, num_elites=4, num_iterations=2)
recorded = RecordedPlanner(planner, lambda latent: plain)
# As one function, without a break: this is what a GPU replays.
recorded._recorded = torch.compile(recorded.planned, backend="eager", fullgraph=True)
start, chance = planner.initial_plan(2), planner.draw_noise(2)
with torch.no_grad():
    expected = planner.plan(plain.score, start, candidates, noise=chance.clone())
    found = recorded.plan((noise,), start, chance, noise)
torch.testing.assert_close(found.actions, expected.actions)
torch.testing.assert_close(found.std, expected.std)
print("same")
"""


@pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_training_and_planning_are_those_of_eager_torch(request):
    path = os.pathsep.join([str(request.config.rootpath), str(request.config.rootpath / "tests")])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True
    )
    assert done.stdout.strip() == "same", done.stderr[-2000:]


SIZE = WorldModelSize(state_dim=3, action_dim=2, latent_dim=16, hidden_dim=32, encoder_dim=32, num_q=3)
BFLOAT16 = Acceleration(precision=torch.bfloat16)


def trainers(*accelerations):
    """Trainers of the same model and chance."""
    torch.manual_seed(0)
    model = WorldModel(SIZE)
    settings = TrainerSettings(num_td_steps=2, learning_rate=1e-3)
    made = [ReturnTrainer(copy.deepcopy(model), settings, seed=0) for _ in accelerations]
    for trainer, acceleration in zip(made, accelerations, strict=True):
        trainer.accelerate(acceleration)
    return made


def test_narrow_matrix_products_train_nearly_the_same():
    full, narrow = trainers(Acceleration(), BFLOAT16)
    for seed in range(20):
        expected = full.update(linear_batch(full.window, seed=seed))
        found = narrow.update(linear_batch(full.window, seed=seed))
    for name, value in found.items():
        assert value.dtype == torch.float32, name
    for name in ("consistency_loss", "reward_loss", "value_loss", "q"):
        torch.testing.assert_close(found[name], expected[name], rtol=0.05, atol=5e-3, msg=name)
    assert not torch.equal(found["loss"], expected["loss"])  # they are narrow indeed
    assert {parameter.dtype for parameter in narrow.model.parameters()} == {torch.float32}


def test_narrow_matrix_products_plan_nearly_the_same():
    (trainer,) = trainers(BFLOAT16)
    for seed in range(5):
        trainer.update(linear_batch(trainer.window, seed=seed))
    observation = {"state": np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)}
    noise = torch.randn(2, 4, 3, 2, generator=torch.Generator().manual_seed(0))
    full, narrow = (
        LearnedForesight(trainer.model, discount=0.9, acceleration=acceleration).outlook(observation)
        for acceleration in (Acceleration(), BFLOAT16)
    )
    with torch.no_grad():
        candidates = full.propose(noise)
        torch.testing.assert_close(narrow.propose(noise), candidates, rtol=0.05, atol=0.02)
        expected, found = full.score(candidates), narrow.score(candidates)
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.01)
    assert found.dtype == torch.float32


def test_control_is_accelerated_as_it_is_told(point_run, tmp_path):
    returns = []
    for name, keys in {"full": [], "narrow": ["precision=bfloat16"]}.items():
        arguments = [f"checkpoint={point_run}", f"task={toy_tasks.POINT}", "episodes=2", "video=false"]
        assert main(["control", *arguments, f"output={tmp_path / name}", *keys]) == 0
        returns.append(json.loads((tmp_path / name / "control.json").read_text())["returns"])
    full, narrow = returns
    assert narrow != full  # so it was heard
    assert np.isfinite(narrow).all()


def test_what_cannot_be_is_told_at_once(refused, tmp_path):
    assert "did you mean bfloat16" in refused("train", "precision=bfloat61", f"run_dir={tmp_path / 'a'}")
    assert "precision=half" in refused("control", "precision=half", "checkpoint=nowhere")
    if not torch.cuda.is_available():
        assert "device=cpu always works" in refused("control", "device=cuda", "checkpoint=nowhere")


def test_without_a_compiler_compile_is_refused(refused, tmp_path, monkeypatch):
    def broken(*args, **kwargs):
        raise RuntimeError("no compiler found")

    monkeypatch.setattr(torch, "compile", broken)
    printed = refused("train", "compile=true", f"run_dir={tmp_path / 'run'}")
    assert "compile=false always works (no compiler found)" in printed
    assert not (tmp_path / "run").exists()


def test_a_recorded_decision_is_that_of_its_planner():
    (trainer,) = trainers(Acceleration())
    for seed in range(5):
        trainer.update(linear_batch(trainer.window, seed=seed))
    foresight = LearnedForesight(trainer.model, discount=0.9)
    planner = MPPI(action_dim=2, horizon=3, num_candidates=16, num_elites=4, num_iterations=2)
    recorded = RecordedPlanner(planner, foresight.outlook_from)
    observation = {"state": np.random.default_rng(0).standard_normal((3, 3)).astype(np.float32)}
    outlook, chance = foresight.outlook(observation), torch.Generator().manual_seed(0)
    proposal_noise = torch.randn(3, 5, 3, 2, generator=chance)
    start = planner.initial_plan(3)
    with torch.no_grad():
        latent = trainer.model.encode({"state": torch.from_numpy(observation["state"])})
        for proposals_asked in (True, False):
            mine = proposal_noise if proposals_asked else None
            noise = planner.draw_noise(3, chance)
            proposals = outlook.propose(proposal_noise) if proposals_asked else None
            expected = planner.plan(outlook.score, start, proposals, noise=noise.clone())
            found = recorded.plan((latent,), start, noise, mine)
            for name in ("actions", "mean", "std", "elites", "elite_returns", "best_returns"):
                assert torch.equal(getattr(found, name), getattr(expected, name)), name
            assert found.num_iterations == expected.num_iterations == 2
            assert found.num_evaluations == expected.num_evaluations
            start = planner.warm_start(found)


def test_a_recorded_decision_in_which_nothing_was_scored_is_told():
    planner = MPPI(action_dim=2, horizon=3, num_candidates=8, num_elites=4, num_iterations=2)
    nothing = RecordedPlanner(
        planner,
        lambda states: Outlook(score=lambda candidates: torch.full(candidates.shape[:2], torch.nan)),
    )
    with pytest.raises(PlannerError, match=r"no candidate of batch rows \[0, 1\]"):
        nothing.plan((torch.zeros(2, 3),), planner.initial_plan(2), planner.draw_noise(2))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("name", ["mppi", "cem", "icem", "predictive_sampling", "dial"])
def test_a_gpu_decides_as_the_cpu_does(name):
    (trainer,) = trainers(Acceleration())
    observation = {"state": np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)}
    actions = {}
    for device, accelerations in {"cpu": [False], "cuda": [False, True]}.items():
        for is_compiled in accelerations:
            foresight = LearnedForesight(
                copy.deepcopy(trainer.model).to(device),
                discount=0.9,
                acceleration=Acceleration(is_compiled=is_compiled),
            )
            planner = {
                "name": "mppi",
                "horizon": 3,
                "num_candidates": 32,
                "num_elites": 8,
                "num_proposals": 4,
            }
            agent = build_planning_agent(foresight, planner, seed=0)
            actions[device, is_compiled] = [agent.act(observation).action for _ in range(3)]
    for key, found in actions.items():
        np.testing.assert_allclose(found, actions["cpu", False], atol=1e-3, err_msg=str(key))


def test_only_what_stays_on_the_device_is_recorded():
    assert MPPI(action_dim=2, horizon=3).is_recordable
    assert CEM(action_dim=2, horizon=3).is_recordable
    assert ICEM(action_dim=2, horizon=3, noise=White()).is_recordable
    assert not ICEM(action_dim=2, horizon=3).is_recordable  # its noise has a matrix
    assert not MPPI(action_dim=2, horizon=3, basis=Cubic(num_knots=2)).is_recordable
    for name in ("gradient", "hybrid", "dial", "predictive_sampling"):
        assert not PLANNERS[name](action_dim=2, horizon=3).is_recordable
