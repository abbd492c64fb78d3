import dataclasses

import numpy as np
import pytest
from made_episodes import assert_same_episode, made_episode

from worldmodel.data import Episode, EpisodeBuilder
from worldmodel.errors import DatasetError, WorldModelError

GOOD = {
    "observation": {"state": np.zeros((4, 2), np.float32)},
    "action": np.zeros((3, 1), np.float32),
    "reward": np.ones(3, np.float32),
    "terminated": False,
    "truncated": True,
}


def test_episode_knows_its_length_and_return():
    episode = Episode(**GOOD)
    assert (episode.num_steps, episode.total_reward) == (3, 3.0)


def test_dataset_error_is_a_mistake_that_the_user_can_mend():
    assert issubclass(DatasetError, WorldModelError)
    assert issubclass(WorldModelError, ValueError)


NAN = np.array([0, np.nan, 0], np.float32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"action": np.zeros((0, 1), np.float32)}, "at least one step"),
        ({"action": np.zeros((3, 0), np.float32)}, "an action has at least one number"),
        ({"action": np.zeros((3, 1))}, "action is float32, not float64"),
        ({"action": np.zeros(3, np.float32)}, "has 2 axes"),
        ({"reward": np.ones(4, np.float32)}, "reward has 4 rows; it needs 3"),
        ({"reward": NAN}, r"reward is nan at \(1,\)"),
        ({"observation": {}}, "'state', 'pixels' or both"),
        ({"observation": {"camera": np.zeros((4, 2), np.float32)}}, "'state', 'pixels' or both"),
        ({"observation": {"state": np.zeros((3, 2), np.float32)}}, "it needs 4, one more than actions"),
        ({"observation": {"state": np.full((4, 2), np.inf, np.float32)}}, "finite"),
        ({"observation": {"pixels": np.zeros((4, 3, 2, 2), np.float32)}}, "is uint8"),
        ({"observation": {"pixels": np.zeros((4, 2, 2), np.uint8)}}, "has 4 axes"),
        ({"extra": {"plan": np.zeros(4)}}, "it needs 3"),
        ({"extra": {"../plan": np.zeros(3)}}, "needs a name"),
        ({"extra": {"plan": np.array(["a", "b", "c"])}}, "has the dtype"),
        ({"extra": {"plan": np.array([1, None, 2], dtype=object)}}, "has the dtype object"),
        ({"extra": {"plan": np.zeros(3, ">f4")}}, "has the dtype"),
        ({"extra": {"plan_std": NAN}}, "extra column 'plan_std' is nan"),
        ({"info": {"seed": [1, 2]}}, "info 'seed'"),
        ({"info": {"score": float("nan")}}, "info 'score'"),
    ],
)
def test_a_broken_rule_is_named(change, message):
    with pytest.raises(DatasetError, match=message):
        Episode(**{**GOOD, **change})


def test_arrays_and_fields_are_read_only():
    episode = made_episode(1, 3, pixels=True, plan=True)
    for array in (episode.action, episode.reward, *episode.observation.values(), *episode.extra.values()):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    with pytest.raises(dataclasses.FrozenInstanceError):
        episode.terminated = True


def test_making_an_episode_leaves_the_given_arrays_writable():
    action = np.zeros((3, 1), np.float32)
    Episode(**{**GOOD, "action": action})
    action[0] = 1


def test_numpy_scalars_in_info_become_plain_ones():
    info = Episode(**GOOD, info={"seed": np.int64(3), "score": np.float32(0.5)}).info
    assert info == {"seed": 3, "score": 0.5}
    assert type(info["seed"]) is int


def test_builder_gives_the_episode_that_was_fed_to_it():
    expected = made_episode(2, 4, terminated=True, pixels=True, plan=True)

    def observation(step):
        return {name: array[step] for name, array in expected.observation.items()}

    builder = EpisodeBuilder(observation(0))
    for step in range(4):
        extra = {name: array[step] for name, array in expected.extra.items()}
        builder.append(expected.action[step], expected.reward[step], observation(step + 1), **extra)
    assert builder.num_steps == 4
    assert_same_episode(builder.build(True, False, expected.info), expected)


def test_builder_copies_what_it_is_given():
    state, action, plan = np.zeros(2, np.float32), np.zeros(1, np.float32), np.zeros(3, np.float32)
    builder = EpisodeBuilder({"state": state})
    for step in (1, 2):
        state[:] = action[:] = plan[:] = step  # As an environment does that reuses its buffers.
        builder.append(action, step, {"state": state}, plan=plan)
    episode = builder.build(False, True)
    assert episode.observation["state"][:, 0].tolist() == [0, 1, 2]
    assert episode.action[:, 0].tolist() == [1, 2]
    assert episode.extra["plan"][:, 0].tolist() == [1, 2]


def test_builder_makes_states_actions_and_rewards_float32():
    builder = EpisodeBuilder({"state": np.zeros(2)})
    builder.append(np.zeros(1), np.float64(1), {"state": np.ones(2)})
    episode = builder.build(np.bool_(True), False)
    assert {episode.observation["state"].dtype, episode.action.dtype, episode.reward.dtype} == {
        np.dtype("float32")
    }
    assert episode.terminated is True


def test_builder_refuses_what_makes_no_episode():
    first = {"state": np.zeros(2)}
    builder = EpisodeBuilder(first)
    with pytest.raises(DatasetError, match="at least one step"):
        builder.build(False, True)
    with pytest.raises(DatasetError, match="same keys"):
        builder.append(np.zeros(1), 0.0, {"pixels": np.zeros((3, 2, 2), np.uint8)})
    builder.append(np.zeros(1), 0.0, first, plan=1.0)
    with pytest.raises(DatasetError, match="same ones on every step"):
        builder.append(np.zeros(1), 0.0, first)
    builder.append(np.zeros(2), 0.0, first, plan=1.0)
    with pytest.raises(DatasetError, match="action of row 1"):
        builder.build(False, True)


def test_builder_refuses_nan_and_numbers_beyond_float32():
    builder = EpisodeBuilder({"state": np.zeros(2)})
    builder.append(np.zeros(1), float("nan"), {"state": np.zeros(2)})
    with pytest.raises(DatasetError, match="reward is nan"):
        builder.build(False, True)
