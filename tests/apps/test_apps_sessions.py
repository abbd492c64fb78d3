"""Robots that share decisions: each is told what an agent of its own would tell it."""

import numpy as np
import pytest
import torch

import planners.sampling
from planners import CEM
from worldmodel.apps.agent import PlanningAgent
from worldmodel.apps.foresight import LearnedForesight
from worldmodel.apps.goals import GoalForesight, always
from worldmodel.apps.sessions import Session, SessionAgent, SessionGoals
from worldmodel.model import LatentModel, WorldModelSize

STATE_DIM, ACTION_DIM, HORIZON, NUM_STEPS = 3, 2, 4, 5
KINDS = ("rewards", "history", "goals")


@pytest.fixture
def same_noise(monkeypatch):
    """Noise that depends on the call alone: every row of a batch gets what a batch of one would get."""

    def white_noise(shape, generator, device, dtype):
        alone = torch.randn(
            (shape[0], 1, *shape[2:]), generator=torch.Generator().manual_seed(3), dtype=dtype
        )
        return alone.repeat(1, shape[1], *(1 for _ in shape[2:]))

    def for_proposals(agent, shape, device):
        alone = torch.randn((1, *shape[1:]), generator=torch.Generator().manual_seed(4))
        return alone.repeat(shape[0], *(1 for _ in shape[1:]))

    monkeypatch.setattr(planners.sampling, "white_noise", white_noise)
    monkeypatch.setattr(PlanningAgent, "_noise", for_proposals)


@pytest.fixture(params=KINDS)
def model(request, tiny_model, trained_looking):
    if request.param == "goals":
        fixed = {"latent_dim": 8, "hidden_dim": 16, "encoder_dim": 16, "history": 2}
        size = WorldModelSize(
            state_dim=STATE_DIM, action_dim=ACTION_DIM, latent_norm="none", predicts_return=False, **fixed
        )
        torch.manual_seed(0)
        return trained_looking(LatentModel(size), std=0.2)
    sizes = {"history": 3} if request.param == "history" else {}
    return trained_looking(tiny_model(state_dim=STATE_DIM, action_dim=ACTION_DIM, **sizes), std=0.2)


def planning(model, goals) -> tuple[PlanningAgent, LearnedForesight | GoalForesight]:
    planner = CEM(
        action_dim=ACTION_DIM,
        horizon=HORIZON,
        num_candidates=24,
        num_elites=6,
        num_iterations=3,
        num_carried=2,
    )
    is_goal = type(model) is LatentModel
    foresight = GoalForesight(model, goals) if is_goal else LearnedForesight(model, discount=0.9)
    generator = torch.Generator().manual_seed(0)
    return PlanningAgent(
        foresight, planner, num_proposals=0 if is_goal else 3, generator=generator
    ), foresight


def sharing(model, **options) -> SessionAgent:
    goals = SessionGoals()
    agent, foresight = planning(model, goals)
    return SessionAgent(agent, foresight, goals=goals, **options)


def states(seed: int, count: int = NUM_STEPS) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, STATE_DIM)).astype(np.float32)


def goal(seed: int) -> dict[str, np.ndarray]:
    return {"state": states(1000 + seed, 1)[0]}


def alone(model, seed: int) -> np.ndarray:
    """The plans (T, H, A) of an agent that has one environment, and sees `states(seed)`."""
    agent, _ = planning(model, always(goal(seed)))
    plans = []
    for state in states(seed):
        agent.act({"state": state[None]})
        plans.append(agent.plan.actions[0].numpy())
    return np.stack(plans)


def play(agent: SessionAgent, turns: list[list[int]]) -> dict[int, list[np.ndarray]]:
    """In each turn these robots are decided for together, in this order."""
    sessions = {seed: Session(goal=goal(seed)) for turn in turns for seed in turn}
    told = {seed: [] for seed in sessions}
    for turn in turns:
        seen = np.stack([states(seed)[len(told[seed])] for seed in turn])
        plans = agent.act([sessions[seed] for seed in turn], {"state": seen})
        for seed, plan in zip(turn, plans, strict=True):
            told[seed].append(plan)
    return told


def check_as_alone(model, told):
    for seed, plans in told.items():
        np.testing.assert_allclose(np.stack(plans), alone(model, seed)[: len(plans)], atol=2e-5)


@pytest.mark.parametrize("options", [{}, {"is_padded": True}], ids=["plain", "padded"])
def test_whoever_shares_the_decision_the_plan_is_ones_own(same_noise, model, options):
    turns = [[0], [1, 0], [2, 1, 0], [0, 2], [1], [2, 1, 3], [0, 1, 2, 3], [3]]
    told = play(sharing(model, **options), turns)
    assert [len(plans) for plans in told.values()] == [5, 5, 4, 3]
    check_as_alone(model, told)
    different = {seed: plans[0] for seed, plans in told.items()}
    assert np.abs(different[0] - different[1]).max() > 0.01  # what would be mixed up differs


def test_the_order_in_the_batch_tells_nothing(same_noise, model):
    first, second = (play(sharing(model), [order] * 3) for order in ([0, 1, 2], [2, 0, 1]))
    for seed in (0, 1, 2):
        np.testing.assert_allclose(first[seed], second[seed], atol=2e-5)


def test_a_reset_session_is_as_a_new_one_and_its_neighbour_goes_on(same_noise, model):
    agent = sharing(model)
    sessions = [Session(goal=goal(0)), Session(goal=goal(1))]
    for step in range(3):
        if step == 2:
            sessions[0].reset()
        seen = np.stack([states(0)[step % 2], states(1)[step]])
        plans = agent.act(sessions, {"state": seen})
    np.testing.assert_allclose(plans[0], alone(model, 0)[0], atol=2e-5)
    np.testing.assert_allclose(plans[1], alone(model, 1)[2], atol=2e-5)


@pytest.mark.parametrize("model", ["goals"], indirect=True)
def test_a_new_goal_counts_at_once(same_noise, model):
    agent, other = sharing(model), Session(goal=goal(5))
    changing = Session(goal=goal(0))
    seen = {"state": states(0)[[0, 0]]}
    agent.act([changing, other], seen)
    changing.goal = goal(5)
    changing.reset()
    other.reset()
    plans = agent.act([changing, other], seen)
    np.testing.assert_allclose(plans[0], plans[1], atol=2e-5)


def test_a_failure_leaves_sessions_as_they_were(model, monkeypatch):
    agent, session = sharing(model), Session(goal=goal(0))
    agent.act([session], {"state": states(0)[:1]})
    before = session.plan, session.past
    monkeypatch.setattr(agent._agent._planner.__class__, "plan", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        agent.act([session], {"state": states(0)[:1]})
    assert (session.plan, session.past) == before


def test_chance_is_drawn_anew_for_each(model):
    sessions = [Session(goal=goal(0)), Session(goal=goal(0))]
    plans = sharing(model).act(sessions, {"state": states(0)[[0, 0]]})
    assert np.abs(plans[0] - plans[1]).max() > 1e-3
