"""Learning to reach goals without search: what is drawn, what is learned, what is left alone."""

import copy

import numpy as np
import pytest
import torch

from worldmodel.data import Episode, EpisodeDataset
from worldmodel.errors import ConfigError
from worldmodel.model import LatentModel, WorldModelSize
from worldmodel.training import clone_behaviour, learn_inverse_dynamics
from worldmodel.training.goal_policies import Hindsight

STEP = 0.1  # how far an action goes


def walk(num_episodes=40, num_steps=12):
    """A point that goes on and on where its action points: where it came tells what it did."""
    dataset, rng = EpisodeDataset(), np.random.default_rng(0)
    for _ in range(num_episodes):
        action = np.tile(rng.uniform(-0.8, 0.8, 2), (num_steps, 1)).astype(np.float32)
        moves = np.concatenate([rng.uniform(-1, 1, (1, 2)), STEP * action])
        dataset.append(
            Episode(
                observation={"state": moves.cumsum(0).astype(np.float32)},
                action=action,
                reward=np.zeros(num_steps, np.float32),
                terminated=False,
                truncated=True,
            )
        )
    return dataset


def model_of(dataset, history=1):
    torch.manual_seed(0)
    size = {"state_dim": 2, "action_dim": 2, "latent_dim": 8, "hidden_dim": 32, "encoder_dim": 32}
    model = LatentModel(WorldModelSize(**size, latent_norm="none", predicts_return=False, history=history))
    for episode in dataset:
        model.encoder.update_statistics({"state": torch.from_numpy(episode.observation["state"].copy())})
    return model


def learn(name, model, dataset, *, num_updates, seed=0):
    common = {"num_updates": num_updates, "seed": seed, "progress": lambda done: None}
    if name == "cloning":
        return clone_behaviour(model, dataset, **common)
    return learn_inverse_dynamics(model, dataset, horizon=4, **common)


def test_pairs_stay_in_their_episode_and_within_the_horizon():
    dataset, rng = EpisodeDataset(), np.random.default_rng(0)
    for episode, length in zip(walk(3), (3, 1, 5), strict=True):
        cut = {"state": episode.observation["state"][: length + 1]}
        dataset.append(
            Episode(
                observation=cut,
                action=episode.action[:length],
                reward=episode.reward[:length],
                terminated=False,
                truncated=True,
            )
        )
    now, later = Hindsight.of(dataset, 1).draw(2000, rng)
    every = {(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2), (3, 3)}
    every |= {(first, last) for first in range(4, 9) for last in range(first, 9)}
    assert set(zip(now.tolist(), later.tolist(), strict=True)) == every
    now, later = Hindsight.of(dataset, 3).draw(2000, rng, horizon=2)
    pairs = set(zip(now.tolist(), later.tolist(), strict=True))
    assert pairs == {(2, 2), (6, 6), (6, 7), (7, 7), (7, 8), (8, 8)}
    with pytest.raises(ConfigError, match="no episode of the dataset has the 6 steps"):
        Hindsight.of(dataset, 6)


@pytest.mark.parametrize("name", ["cloning", "inverse"])
@pytest.mark.parametrize("history", [1, 2])
def test_it_acts_towards_the_goal(name, history):
    dataset = walk()
    model = model_of(dataset, history)
    policy = learn(name, model, dataset, num_updates=300 if name == "cloning" else 900)
    place, actions = torch.rand(64, 2) - 0.5, 1.2 * (torch.rand(64, 2) - 0.5)
    latent = policy.model.encode({"state": place})
    if history == 2:
        before = policy.model.embed({"state": place - STEP * actions})
        now = policy.model.embed({"state": place})
        latent = policy.model.layout.advance(policy.model.layout.start(before), actions, now)
    goal = policy.model.embed({"state": place + 3 * STEP * actions})
    with torch.no_grad():
        cosine = torch.nn.functional.cosine_similarity(policy(latent, goal), actions)
    assert cosine.median() > 0.8


@pytest.mark.parametrize("name", ["cloning", "inverse"])
def test_the_model_stays_as_it_is_and_the_seed_decides(name):
    dataset = walk(5)
    model = model_of(dataset)
    before = copy.deepcopy(model.state_dict())
    first, again, other = (learn(name, model, dataset, num_updates=3, seed=seed) for seed in (1, 1, 2))
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])
    for key, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[key])
    assert not torch.equal(first.head[0].weight, other.head[0].weight)
    is_own = [a is not b for a, b in zip(first.model.parameters(), model.parameters(), strict=True)]
    assert all(is_own) if name == "cloning" else not any(is_own)
