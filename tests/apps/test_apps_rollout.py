"""Recording: every number comes from the environment, episode and step that it is filed under."""

import numpy as np
import pytest
import toy_tasks
from toy_tasks import Count

from worldmodel.apps.agent import Decision
from worldmodel.apps.build import build_env
from worldmodel.apps.rollout import Collector, rollouts
from worldmodel.apps.simple_agents import RandomAgent, ZeroAgent
from worldmodel.data.recorder import BatchRecorder

ENV = {"action_repeat": 1, "observe": ["state"], "image_size": 8}
# Different ends at different times; some coincide (step 6 of all three).
ENDS = [
    [(2, "terminated"), (4, "truncated")],
    [(3, "truncated"), (3, "terminated")],
    [(6, "truncated"), (1, "terminated")],
]


@pytest.fixture
def counting(monkeypatch):
    """A function that makes a vector environment whose i-th member ends as `ends[i]` says, over and over."""
    made = []

    def make(ends, *, seed: int = 0):
        monkeypatch.setattr(Count, "ends", ends)
        monkeypatch.setattr(Count, "num_made", 0)
        made.append(build_env(toy_tasks.COUNT, ENV, num_envs=len(ends), seed=seed))
        return made[-1]

    yield make
    for env in made:
        env.close()


class CodedAgent:
    """Acts with numbers that say when and where they were used, and remembers what it was told."""

    def __init__(self) -> None:
        self.num_steps, self.resets, self.seen = 0, [], []

    def reset(self, is_new=None):
        self.resets.append(None if is_new is None else is_new.tolist())

    def act(self, observation):
        self.seen.append(observation["state"].copy())
        self.num_steps += 1
        rows = np.arange(len(observation["state"]), dtype=np.float32)
        action = (0.001 * self.num_steps + 0.1 * rows)[:, None].astype(np.float32)
        return Decision(action=action, mean=-action, std=action + 1)


def collected(env, num_steps: int):
    agent = CodedAgent()
    collector = Collector(env)
    steps = [collector.step(agent, {"policy": "coded"}) for _ in range(num_steps)]
    return agent, [ended for step in steps for ended in step]


def check_episode(index: int, number: int, episode, first_step: int) -> None:
    """All of an episode against what the toy must have said; `first_step` counts the agent's steps."""
    num_steps, kind = ENDS[index][number % 2]
    assert episode.num_steps == num_steps
    assert (episode.terminated, episode.truncated) == (kind == "terminated", kind == "truncated")
    steps = np.arange(num_steps + 1)
    state = episode.observation["state"]
    assert (state[:, 0] == index).all()
    assert (state[:, 1] == number).all()
    assert state[:, 2].tolist() == steps.tolist()  # the last observation is the episode's own
    assert len(set(state[:, 3])) == 1
    action = (0.001 * (first_step + steps[:-1] + 1) + 0.1 * index).astype(np.float32)
    assert episode.action[:, 0] == pytest.approx(action, abs=1e-7)
    assert episode.reward == pytest.approx(1000 * index + 100 * number + steps[1:] + action, rel=1e-6)
    assert np.array_equal(episode.extra["plan_mean"], -episode.action)
    assert np.array_equal(episode.extra["plan_std"], episode.action + 1)
    assert episode.info == {"policy": "coded"}


def test_every_number_is_recorded_where_it_belongs(counting):
    _, found = collected(counting(ENDS), 14)
    counts, first_steps = [0, 0, 0], [0, 0, 0]
    for index, episode in found:
        check_episode(index, counts[index], episode, first_steps[index])
        first_steps[index] += episode.num_steps
        counts[index] += 1
    # 14 steps: 2+4+2+4+2, 3+3+3+3, 6+1+6+1.
    assert counts == [5, 4, 4]


def test_the_agent_sees_the_first_observation_of_each_episode_and_is_told(counting):
    agent, _ = collected(counting(ENDS), 7)
    assert agent.resets == [
        None,
        [False, False, False],
        [True, False, False],
        [False, True, False],
        [False, False, False],
        [False, False, False],
        [True, True, True],
    ]
    steps_seen = np.stack(agent.seen)[:, :, 2]
    assert steps_seen[:, 0].tolist() == [0, 1, 0, 1, 2, 3, 0]
    assert steps_seen[:, 1].tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert steps_seen[:, 2].tolist() == [0, 1, 2, 3, 4, 5, 0]


@pytest.mark.parametrize(
    ("num_episodes", "shares"), [(6, [2, 2, 2]), (5, [2, 2, 1]), (2, [1, 1, 0]), (1, [1, 0, 0])]
)
def test_exactly_as_many_as_asked_in_equal_shares(counting, num_episodes, shares):
    # One environment ends every step: first come, first served would take them all from there.
    env = counting([[(1, "terminated")], [(5, "truncated")], [(9, "truncated")]])
    found = list(rollouts(env, ZeroAgent(1), num_episodes))
    indices = [int(episode.observation["state"][0, 0]) for episode in found]
    assert [indices.count(index) for index in range(3)] == shares
    # The first episodes of each, none left out.
    for index in range(3):
        numbers = [e.observation["state"][0, 1] for e in found if e.observation["state"][0, 0] == index]
        assert numbers == list(range(shares[index]))


def test_no_episode_is_no_step(counting):
    env = counting(ENDS)
    agent = CodedAgent()
    assert list(rollouts(env, agent, 0)) == []
    assert agent.num_steps == 0


def test_seeds_repeat_the_episodes_and_differ_between_environments(counting):
    env = counting(ENDS)

    def played(seeds):
        agent = RandomAgent(1, np.random.default_rng(0))
        return [e.observation["state"].tolist() for e in rollouts(env, agent, 6, seeds=seeds)]

    first = played([5, 6, 7])
    assert played([5, 6, 7]) == first
    assert played([8, 9, 10]) != first
    draws = [episode[0][3] for episode in first]
    assert len(set(draws)) == 6


def test_info_is_recorded(counting):
    (episode,) = rollouts(counting(ENDS[:1]), ZeroAgent(1), 1, info={"policy": "zero", "seed": 3})
    assert episode.info == {"policy": "zero", "seed": 3}


def test_episodes_that_nobody_wants_are_not_made_and_each_is_told_its_own(counting, monkeypatch):
    built = []
    build = BatchRecorder.build

    def noted(self, index, **rest):
        built.append(index)
        return build(self, index, **rest)

    monkeypatch.setattr(BatchRecorder, "build", noted)
    collector, agent = Collector(counting(ENDS)), CodedAgent()
    steps = [collector.step(agent, lambda row: {"row": row}, wanted={0, 2}) for _ in range(6)]
    found = [ended for step in steps for ended in step]
    assert built == [index for index, _ in found] == [0, 0, 2]
    assert [episode.info for _, episode in found] == [{"row": 0}, {"row": 0}, {"row": 2}]
