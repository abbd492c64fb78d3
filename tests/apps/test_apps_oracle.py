"""Acting with the simulator itself as the model."""

import json

import numpy as np
import pytest
import torch

import envs
from planners import CEM, risk
from worldmodel.apps.agent import PlanningAgent
from worldmodel.apps.build import build_env
from worldmodel.apps.cli import main
from worldmodel.apps.config import compose_config, to_dict
from worldmodel.apps.foresight import LearnedForesight, OracleForesight, oracle_scorer
from worldmodel.apps.rollout import rollouts
from worldmodel.apps.simple_agents import RandomAgent
from worldmodel.apps.trained import open_run
from worldmodel.apps.verbs import VERBS
from worldmodel.errors import ConfigError

SMALL = (
    "planner.horizon=10",
    "planner.num_candidates=16",
    "planner.num_iterations=2",
    "planner.num_elites=4",
)


@pytest.fixture
def env():
    env = build_env("cartpole-balance", {"action_repeat": 8}, num_envs=2, seed=0, how="sync")
    env.reset()
    yield env
    env.close()


def test_control_needs_no_checkpoint_to_plan_in_the_simulator(tmp_path):
    arguments = [
        "control",
        "model=oracle",
        "task=cartpole-balance",
        "planner=cem",
        "episodes=1",
        "video=false",
    ]
    assert main([*arguments, "env.action_repeat=8", *SMALL, f"output={tmp_path}"]) == 0
    told = json.loads((tmp_path / "control.json").read_text())
    assert told["model"] == "oracle"
    assert told["checkpoint"] is None
    assert told["planner"]["num_candidates"] == 16
    assert told["return"]["mean"] > 600  # as long as it balances; random actions reach about 350


def test_without_a_planner_the_oracle_plans_far_ahead_with_icem():
    overrides = ["model=oracle", "task=cheetah-run"]
    config = to_dict(compose_config("control", [*VERBS["control"].implied(overrides), *overrides]))
    assert (config["planner"]["name"], config["planner"]["horizon"]) == ("icem", 30)
    assert VERBS["control"].implied(["model=oracle", "planner=cem", "budget=small"]) == []
    assert VERBS["control"].implied(["checkpoint=x"]) == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "checkpoint= is missing"),
        (("model=oracle",), "task= is missing"),
        (("model=orcale", "task=cheetah-run"), "did you mean oracle"),
        (("model=tiny", "task=cheetah-run"), "Known: oracle"),
        (("model=oracle", "task=quadruped-walk"), "no batched observation and reward"),
        (("model=oracle", "task=pendulum-swingup", "planner=gradient"), "take a planner that samples"),
        (("agent=policy", "task=pendulum-swingup"), "checkpoint= is missing"),
    ],
)
def test_a_mistake_is_told_in_one_line(refused, tmp_path, arguments, told):
    assert told in refused("control", *arguments, "video=false", f"output={tmp_path / 'out'}")


def test_training_refuses_the_oracle_as_its_model(refused, tmp_path):
    assert "there is no model 'oracle'" in refused("train", "model=oracle", f"run_dir={tmp_path / 'run'}")


def test_the_oracle_foresees_the_return_that_the_environments_then_give(env):
    foresight = OracleForesight(env)
    candidates = torch.rand(2, 1, 5, 1, generator=torch.Generator().manual_seed(0)) * 2 - 1
    foreseen = foresight.outlook({}).score(candidates)
    got = np.zeros(2)
    for step in range(5):
        got += env.step(candidates[:, 0, step].numpy())[1]
    assert foreseen[:, 0].numpy() == pytest.approx(got, rel=1e-6)
    assert foresight.outlook({}).propose is None


def test_a_learned_model_adds_its_value_and_its_proposals(env, tiny_model, trained_looking):
    model = trained_looking(tiny_model(state_dim=5, action_dim=1))
    learned = LearnedForesight(model, discount=0.9)
    foresight = OracleForesight(env, learned=learned)
    observation, _ = env.reset()
    outlook = foresight.outlook(observation)
    candidates = torch.zeros(2, 1, 2, 1)
    rewards, observations = foresight.oracle.play(env.simulations, candidates.numpy())
    last = torch.from_numpy(observations["state"][:, 0, -1])
    with torch.no_grad():
        value = model.value(model.encode({"state": last})).numpy()
    expected = rewards[:, 0] @ np.array([1, 0.9]) + 0.81 * value
    assert outlook.score(candidates)[:, 0].numpy() == pytest.approx(expected, rel=1e-5)
    assert outlook.propose is not None
    with torch.no_grad():
        assert outlook.propose(torch.zeros(2, 4, 3, 1)).shape == (2, 4, 3, 1)


def test_planning_in_the_simulator_beats_random_actions_in_a_batch(env):
    def mean_return(agent):
        return np.mean([episode.total_reward for episode in rollouts(env, agent, 2, seeds=[5, 6])])

    planner = CEM(action_dim=1, horizon=10, num_candidates=16, num_elites=4, num_iterations=2, execute="best")
    agent = PlanningAgent(
        OracleForesight(env), planner, num_proposals=0, generator=torch.Generator().manual_seed(0)
    )
    random = RandomAgent(1, np.random.default_rng(0))
    assert mean_return(agent) > 1.5 * mean_return(random)


def test_the_worst_of_several_robots_is_planned_for(env):
    def stronger(factor):
        def change(model):
            model.actuator_gear[:] *= factor

        return change

    oracles = [envs.Oracle("cartpole-balance", action_repeat=8, change_model=stronger(f)) for f in (1, -3)]
    scorers = [oracle_scorer(oracle, env.simulations) for oracle in oracles]
    candidates = torch.rand(2, 6, 8, 1, generator=torch.Generator().manual_seed(0)) * 2 - 1
    each = torch.stack([score(candidates) for score in scorers])
    worst = risk.over_members(scorers, risk.worst_case())(candidates)
    assert torch.equal(worst, each.amin(0))
    assert not torch.equal(each[0], each[1])


def test_environments_in_other_processes_are_refused():
    env = envs.make_vec("pendulum-swingup", num_envs=1, how="async")
    try:
        with pytest.raises(ConfigError, match="how='sync'"):
            OracleForesight(env)
    finally:
        env.close()


def test_what_is_left_open_of_a_planner_is_as_it_was_trained(point_run):
    run = open_run(point_run)
    trained = run.config["planner"]
    noise = {"name": "colored", "exponent": 2.0}
    assert run.planner_config({"noise": noise}) == trained | {"noise": noise}
    assert run.planner_config(None) == trained
    assert run.planner_config({"horizon": 7}) == trained | {"horizon": 7}
    with pytest.raises(ConfigError, match="noise="):
        run.planner_config({"noise": {"exponent": 2.0}})
    assert run.planner_config({"name": "cem"}) == {"name": "cem"}


def test_single_settings_of_a_trained_planner_can_be_replaced(tmp_path, point_run, refused):
    changed = ("planner.horizon=2", "planner.num_candidates=24")
    arguments = ["control", f"checkpoint={point_run}", "episodes=1", "video=false"]
    assert main([*arguments, *changed, f"output={tmp_path}"]) == 0
    told = json.loads((tmp_path / "control.json").read_text())["planner"]
    trained = open_run(point_run).config["planner"]
    assert told == trained | {"horizon": 2, "num_candidates": 24}
    assert "did you mean planner.horizon" in refused(*arguments, "planner.horzon=2")
    assert "must be a whole number" in refused(*arguments, "planner.horizon=far")
    assert "momentum" in refused(*arguments, "planner.momentum=0.5")  # trained with MPPI
