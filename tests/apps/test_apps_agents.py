"""Agents: seeds, batches, warm starts, resets, noise."""

import numpy as np
import pytest
import torch

from planners import CEM, DIAL, PredictiveSampling
from worldmodel.apps.agent import PlanningAgent, PolicyAgent
from worldmodel.apps.foresight import LearnedForesight
from worldmodel.apps.simple_agents import ColoredNoiseAgent, RandomAgent, ZeroAgent

STATE_DIM, ACTION_DIM, HORIZON = 3, 2, 4


def observed(size: int, *, seed: int = 0) -> dict[str, np.ndarray]:
    return {"state": np.random.default_rng(seed).normal(size=(size, STATE_DIM)).astype(np.float32)}


@pytest.fixture
def model(tiny_model, trained_looking):
    return trained_looking(tiny_model(state_dim=STATE_DIM, action_dim=ACTION_DIM), std=0.2)


@pytest.fixture
def planning(model):
    """A function that makes planning agents on one model."""

    def make(*, seed: int = 0, exploration_std: float = 0.0, **settings) -> PlanningAgent:
        small = {"horizon": HORIZON, "num_candidates": 12, "num_elites": 4, "num_iterations": 2}
        planner = CEM(action_dim=ACTION_DIM, **(small | settings))
        generator = torch.Generator().manual_seed(seed)
        return PlanningAgent(
            LearnedForesight(model, discount=0.9),
            planner,
            num_proposals=3,
            generator=generator,
            exploration_std=exploration_std,
        )

    return make


def decide(agent, steps: int, size: int = 3) -> np.ndarray:
    return np.stack([agent.act(observed(size, seed=step)).action for step in range(steps)])


def test_the_same_seed_decides_the_same(planning):
    assert np.array_equal(decide(planning(seed=1), 4), decide(planning(seed=1), 4))
    assert not np.array_equal(decide(planning(seed=1), 4), decide(planning(seed=2), 4))


def test_a_restored_agent_draws_on_where_it_was(planning):
    first, second = planning(seed=1), planning(seed=99)
    decide(first, 2)
    second.restore(first.state())
    first.reset()
    assert np.array_equal(decide(first, 2), decide(second, 2))


def test_shapes_of_a_batch_of_three(planning):
    agent = planning()
    decision = agent.act(observed(3))
    for array in (decision.action, decision.mean, decision.std):
        assert array.shape == (3, ACTION_DIM)
        assert array.dtype == np.float32
    assert agent.plan.mean.shape == (3, HORIZON, ACTION_DIM)
    assert set(decision.columns()) == {"plan_mean", "plan_std"}
    assert decision.columns()["plan_mean"] is decision.mean
    # Mean and std of one Gaussian, whichever candidate was executed.
    assert np.array_equal(decision.mean, agent.plan.mean[:, 0].numpy())
    assert np.array_equal(decision.std, agent.plan.std[:, 0].numpy())
    assert (decision.std > 0).all()


def test_without_exploration_the_plan_is_executed(planning):
    agent = planning()
    decision = agent.act(observed(3))
    assert np.array_equal(decision.action, agent.plan.actions[:, 0].numpy())


def test_exploration_adds_noise_and_stays_in_bounds(planning):
    agent = planning(exploration_std=5.0)
    decision = agent.act(observed(50))
    assert (decision.action != decision.mean).mean() > 0.9
    assert np.abs(decision.action).max() == 1  # noise of 5 leaves the bounds, and is cut there
    assert (np.abs(decision.action) == 1).mean() > 0.7


@pytest.mark.parametrize(("planner_std", "expected"), [(0.05, 0.1), (0.2, 0.2)])
def test_exploration_has_the_planners_std_but_at_least_what_was_asked_for(planning, planner_std, expected):
    agent = planning(exploration_std=0.1, min_std=0.05, initial_std=planner_std)
    decision = agent.act(observed(2000), deadline=0.0)  # no time to plan: mean 0, std as it starts
    assert not decision.mean.any()
    assert decision.std == pytest.approx(planner_std)
    assert decision.action.std() == pytest.approx(expected, rel=0.1)
    assert abs(decision.action.mean()) < 0.02


def starts_of(agent) -> list:
    """Records the plan that each decision starts from."""
    starts = []
    plan = agent._planner.plan

    def recording(score, start, *rest, **named):
        starts.append(start)
        return plan(score, start, *rest, **named)

    object.__setattr__(agent._planner, "plan", recording)
    return starts


def test_a_decision_starts_from_the_plan_before_it(planning):
    agent = planning()
    starts = starts_of(agent)
    agent.act(observed(3))
    before = agent.plan
    agent.act(observed(3, seed=1))
    assert not starts[0].mean.any()
    assert torch.equal(starts[1].mean[:, :-1], before.mean[:, 1:])
    assert before.mean[:, 1:].any()
    assert not starts[1].mean[:, -1].any()


def test_a_reset_concerns_only_its_environments(planning):
    agent = planning()
    starts = starts_of(agent)
    agent.act(observed(3))
    before = agent.plan
    agent.reset(np.array([False, True, False]))
    agent.act(observed(3, seed=1))
    assert not starts[1].mean[1].any()
    for row in (0, 2):
        assert torch.equal(starts[1].mean[row, :-1], before.mean[row, 1:])
    # It is forgotten once, not for ever.
    before = agent.plan
    agent.act(observed(3, seed=2))
    assert torch.equal(starts[2].mean[:, :-1], before.mean[:, 1:])


def test_two_resets_before_a_decision_add_up(planning):
    agent = planning()
    starts = starts_of(agent)
    agent.act(observed(3))
    agent.reset(np.array([True, False, False]))
    agent.reset(np.array([False, False, True]))
    agent.reset(np.array([False, False, False]))
    agent.act(observed(3, seed=1))
    assert [bool(row.any()) for row in starts[1].mean] == [False, True, False]


def test_a_full_reset_or_another_batch_starts_anew(planning):
    agent = planning()
    starts = starts_of(agent)
    agent.act(observed(3))
    agent.reset()
    agent.act(observed(3))
    agent.reset(np.array([True, False, False]))
    agent.act(observed(2))
    agent.act(observed(2))
    assert not starts[1].mean.any()
    assert not starts[2].mean.any()
    assert len(starts[2].mean) == 2
    assert starts[3].mean.any(dim=(1, 2)).all()  # the reset of the old batch says nothing about the new one


def test_actions_stay_in_bounds(planning):
    for agent in (planning(initial_std=2.0), planning(initial_std=2.0, exploration_std=1.0)):
        assert np.abs(decide(agent, 5)).max() <= 1


def test_a_deadline_that_has_passed_still_gives_an_action(planning):
    agent = planning()
    decision = agent.act(observed(2), deadline=0.0)
    assert agent.plan.num_iterations == 0
    assert not decision.action.any()


def test_the_policy_acts_alone_and_without_chance(model):
    agent = PolicyAgent(model)
    first, second = agent.act(observed(3)), agent.act(observed(3))
    assert np.array_equal(first.action, second.action)
    latent = model.encode({"state": torch.from_numpy(observed(3)["state"])})
    assert np.allclose(first.action, model.policy.best_action(latent).detach().numpy(), atol=1e-6)
    assert first.action.any()
    assert np.abs(first.action).max() <= 1


def test_no_action_is_zero():
    decision = ZeroAgent(ACTION_DIM).act(observed(3))
    assert decision.action.shape == (3, ACTION_DIM)
    assert not decision.action.any()
    assert not decision.std.any()


def test_random_actions_are_uniform_and_repeatable():
    def draw(seed: int) -> np.ndarray:
        return decide(RandomAgent(ACTION_DIM, np.random.default_rng(seed)), 500, size=10)

    actions = draw(0)
    assert actions.shape == (500, 10, ACTION_DIM)
    assert np.array_equal(actions, draw(0))
    assert not np.array_equal(actions, draw(1))
    quarters = np.histogram(actions, bins=4, range=(-1, 1))[0] / actions.size
    assert quarters == pytest.approx([0.25] * 4, abs=0.02)
    decision = RandomAgent(1, np.random.default_rng(0)).act(observed(1))
    assert decision.std == pytest.approx(actions.std(), rel=0.02)


def coloured(steps: int, size: int = 1, **settings) -> np.ndarray:
    agent = ColoredNoiseAgent(ACTION_DIM, np.random.default_rng(0), **settings)
    return decide(agent, steps, size)


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0])
def test_the_power_of_coloured_noise_falls_as_asked(exponent):
    noise = coloured(1024, size=40, exponent=exponent, std=0.1).astype(np.float64)
    power = (np.abs(np.fft.rfft(noise, axis=0)) ** 2).mean((1, 2))
    frequency = np.fft.rfftfreq(1024)
    used = slice(2, 500)
    slope = np.polyfit(np.log(frequency[used]), np.log(power[used]), 1)[0]
    assert slope == pytest.approx(-exponent, abs=0.1)


def test_coloured_noise_is_bounded_and_has_its_std():
    assert np.abs(coloured(300, std=3.0)).max() == 1
    noise = coloured(1024, size=20, std=0.2)
    assert noise.std(0) == pytest.approx(np.full((20, ACTION_DIM), 0.2), rel=0.02)


def test_coloured_noise_differs_between_environments_and_dimensions():
    noise = coloured(200, size=2).reshape(200, -1)
    correlations = np.corrcoef(noise.T) - np.eye(noise.shape[1])
    assert np.abs(correlations).max() < 0.9


def test_a_reset_draws_new_noise_for_these_environments_alone():
    def agent():
        return ColoredNoiseAgent(ACTION_DIM, np.random.default_rng(0))

    plain, restarted = agent(), agent()
    assert np.array_equal(decide(plain, 5), decide(restarted, 5))
    restarted.reset(np.array([False, True, False]))
    later, later_restarted = decide(plain, 5), decide(restarted, 5)
    assert np.array_equal(later[:, [0, 2]], later_restarted[:, [0, 2]])
    assert not np.array_equal(later[:, 1], later_restarted[:, 1])


def test_a_reset_before_the_first_action_is_harmless():
    for made in (ColoredNoiseAgent(ACTION_DIM, np.random.default_rng(0)), ZeroAgent(ACTION_DIM)):
        made.reset(np.array([True, False, True]))
        assert made.act(observed(3)).action.shape == (3, ACTION_DIM)


def test_after_a_full_reset_all_noise_is_new():
    agent = ColoredNoiseAgent(ACTION_DIM, np.random.default_rng(0))
    first = decide(agent, 5)
    agent.reset()
    assert not (decide(agent, 5) == first).all(axis=(0, 2)).any()


def test_a_planner_whose_std_tells_nothing_explores_as_it_is_told(model):
    settings = {"action_dim": ACTION_DIM, "horizon": HORIZON, "num_candidates": 12, "num_elites": 4}
    for planner in (DIAL(**settings), PredictiveSampling(**settings)):
        quiet, loud = (
            PlanningAgent(
                LearnedForesight(model, discount=0.9),
                planner,
                num_proposals=3,
                generator=torch.Generator().manual_seed(0),
                exploration_std=std,
            )
            for std in (0.0, 1e-4)
        )
        still, moved = quiet.act(observed(3)), loud.act(observed(3))
        assert np.abs(still.action - moved.action).max() < 1e-3  # not the planner's std of 0.3 or 1
        assert not still.std.any()
