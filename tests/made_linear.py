"""Episodes of a small deterministic linear system: everything about it can be learned."""

import numpy as np

from worldmodel.data import Batch, Episode, EpisodeDataset, TaskDatasets

# A damped rotation, pushed by the two actions.
TURN = np.array([[0.9, 0.3, 0.0], [-0.3, 0.9, 0.0], [0.0, 0.0, 0.8]])
PUSH = np.array([[0.3, 0.0, 0.2], [0.0, 0.3, -0.2]])


def linear_episode(seed: int, num_steps: int = 20, *, terminated: bool = False) -> Episode:
    """The reward is the first state dimension plus the first action."""
    chance = np.random.default_rng(seed)
    actions = chance.uniform(-1, 1, size=(num_steps, 2))
    states = [chance.normal(size=3)]
    for action in actions:
        states.append(states[-1] @ TURN + action @ PUSH)
    rewards = np.array(states)[:-1, 0] + actions[:, 0]
    return Episode(
        observation={"state": np.array(states, dtype=np.float32)},
        action=actions.astype(np.float32),
        reward=rewards.astype(np.float32),
        terminated=terminated,
        truncated=not terminated,
    )


def linear_dataset(num_episodes: int = 5, path=None, **kwargs) -> EpisodeDataset:
    """Every other episode terminates."""
    dataset = EpisodeDataset(path, mode="r" if path is None else "a")
    for seed in range(num_episodes):
        dataset.append(linear_episode(seed, terminated=seed % 2 == 1, **kwargs))
    return dataset


def linear_batch(window: int, batch_size: int = 16, *, seed: int = 0) -> Batch:
    """Windows of episodes that are short enough for some to be padded."""
    batch = linear_dataset(num_steps=6).sample(batch_size, window, np.random.default_rng(seed))
    assert window == 1 or not batch.valid.all()
    return batch


def reach_episode(seed: int, num_steps: int = 20) -> Episode:
    """Another task, of other sizes: one number, moved by one action; paid a hundredfold for being near 0."""
    chance = np.random.default_rng([1, seed])
    actions = chance.uniform(-1, 1, size=(num_steps, 1))
    states = [chance.normal(size=1)]
    for action in actions:
        states.append(0.8 * states[-1] + 0.5 * action)
    rewards = -100 * np.abs(np.array(states)[:-1, 0])
    return Episode(
        observation={"state": np.array(states, dtype=np.float32)},
        action=actions.astype(np.float32),
        reward=rewards.astype(np.float32),
        terminated=False,
        truncated=True,
    )


def two_tasks(num_episodes: int = 5, **kwargs) -> TaskDatasets:
    """A linear system of three numbers and two actions, and one of one and one."""
    reach = EpisodeDataset()
    for seed in range(num_episodes):
        reach.append(reach_episode(seed, **kwargs))
    return TaskDatasets([linear_dataset(num_episodes, **kwargs), reach])
