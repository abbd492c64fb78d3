"""Hand-made episodes whose every number says which episode and step it belongs to."""

import numpy as np

from worldmodel.data import Batch, Episode, EpisodeDataset


def code(episode: int, step: int) -> float:
    """A number that float32 holds exactly, and that names an episode (from 1) and a step."""
    return episode * 1000.0 + step


def made_episode(
    number: int, num_steps: int, *, terminated: bool = False, pixels: bool = False, plan: bool = False
) -> Episode:
    steps = np.arange(num_steps + 1)
    codes = (number * 1000.0 + steps).astype(np.float32)
    observation = {"state": np.stack([codes, -codes], axis=1)}
    if pixels:
        observation["pixels"] = np.broadcast_to(
            ((7 * number + steps) % 256).astype(np.uint8)[:, None, None, None], (num_steps + 1, 3, 4, 4)
        ).copy()
    extra = {}
    if plan:
        extra = {
            "plan_mean": np.broadcast_to(codes[:-1, None, None], (num_steps, 5, 3)).copy(),
            "num_iterations": np.arange(1, num_steps + 1),
        }
    return Episode(
        observation=observation,
        action=np.stack([codes[:-1] + 0.25] * 3, axis=1),
        reward=codes[:-1] + np.float32(0.5),
        terminated=terminated,
        truncated=not terminated,
        extra=extra,
        info={"number": number, "policy": "made", "score": 0.1 * number, "flag": True, "nothing": None},
    )


def assert_same_episode(found: Episode, expected: Episode) -> None:
    """Equal to the bit."""
    for group in ("observation", "extra"):
        left, right = getattr(found, group), getattr(expected, group)
        assert left.keys() == right.keys()
        for name in left:
            assert_same_array(left[name], right[name])
    assert_same_array(found.action, expected.action)
    assert_same_array(found.reward, expected.reward)
    assert (found.terminated, found.truncated) == (expected.terminated, expected.truncated)
    assert found.info == expected.info


def assert_same_array(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    assert found.tobytes() == expected.tobytes()


def assert_window(batch: Batch, row: int, episode: Episode, start: int) -> None:
    """The window in this row of the batch is what the rule says, step by step."""
    for step in range(batch.horizon + 1):
        source = min(start + step, episode.num_steps)
        for name, array in episode.observation.items():
            assert_same_array(batch.observation[name][row, step].numpy(), array[source])
    for step in range(batch.horizon):
        source = start + step
        real = source < episode.num_steps
        assert bool(batch.valid[row, step]) is real
        last = source == episode.num_steps - 1
        assert bool(batch.terminated[row, step]) is (last and episode.terminated)
        columns = {"action": batch.action, "reward": batch.reward, **batch.extra}
        arrays = {"action": episode.action, "reward": episode.reward, **episode.extra}
        for name, tensor in columns.items():
            expected = arrays[name][source] if real else np.zeros_like(arrays[name][0])
            assert np.array_equal(tensor[row, step].numpy(), expected)


def starts_of(episodes: list[Episode]) -> list[tuple[Episode, int]]:
    """Every window start: the episode and the step in it, in the order of their step numbers."""
    return [(episode, step) for episode in episodes for step in range(episode.num_steps)]


def write(path, numbers, **episode) -> EpisodeDataset:
    """Append the episodes of these numbers; the larger, the longer."""
    dataset = EpisodeDataset(path, mode="a")
    for number in numbers:
        dataset.append(made_episode(number, 3 + number, **episode))
    return dataset
