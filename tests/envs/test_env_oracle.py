"""The oracle's promises; that it foresees what happens is tested with the batched tasks."""

import numpy as np
import pytest

import envs
from envs import oracle as oracle_module


@pytest.fixture
def cheetah():
    env = envs.make("cheetah-run", action_repeat=2)
    env.reset(seed=0)
    for _ in range(3):
        env.step(np.full(6, 0.5))
    yield env
    env.close()


def candidates(num_envs, num_candidates, horizon, action_dim, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(-1, 1, (num_envs, num_candidates, horizon, action_dim)).astype(np.float32)


def played(env, actions):
    return np.array([env.step(action)[1] for action in actions])


def test_the_return_is_the_sum_of_rewards_that_the_environment_gives(cheetah):
    plan = candidates(1, 1, 20, 6)
    returns = envs.Oracle("cheetah-run", action_repeat=2).returns([cheetah.simulation], plan)
    assert returns.shape == (1, 1)
    assert returns.dtype == np.float64
    np.testing.assert_allclose(returns[0, 0], played(cheetah, plan[0, 0]).sum(), rtol=1e-12)


def test_scoring_leaves_the_environment_untouched(cheetah):
    model, data = cheetah.simulation.model, cheetah.simulation.data
    # Matrices that only some solvers fill: MuJoCo 3.11 shows whatever memory is there.
    names = [name for name in dir(data) if isinstance(getattr(data, name), np.ndarray)]
    names = [name for name in names if not name.startswith(("efc_AR", "efc_Y", "efm_"))]
    before = {name: getattr(data, name).copy() for name in names}
    physics_state, gravity, mass = cheetah.physics_state(), model.opt.gravity.copy(), model.body_mass.copy()

    def lighter(copy):
        copy.opt.gravity[2] = -1.0
        copy.body_mass[:] = 1.0

    oracle = envs.Oracle("cheetah-run", action_repeat=2, change_model=lighter)
    oracle.returns([cheetah.simulation], candidates(1, 4, 10, 6))
    oracle.play([cheetah.simulation], candidates(1, 4, 10, 6))
    for name in names:
        np.testing.assert_array_equal(getattr(data, name), before[name], err_msg=name)
    np.testing.assert_array_equal(cheetah.physics_state(), physics_state)
    np.testing.assert_array_equal(model.opt.gravity, gravity)
    np.testing.assert_array_equal(model.body_mass, mass)


@pytest.mark.parametrize("task", ["cheetah-run", "humanoid-walk", "finger-turn-hard"])
def test_threads_and_chunks_do_not_change_a_bit(task, monkeypatch):
    simulations = []
    for seed in (0, 1):
        env = envs.make(task)
        env.reset(seed=seed)
        simulations.append(env.simulation)
    plans = candidates(2, 7, 15, *env.action_space.shape)
    one, two = (envs.Oracle(task, num_threads=count) for count in (1, 2))
    expected = one.returns(simulations, plans)
    np.testing.assert_array_equal(one.returns(simulations, plans), expected)
    np.testing.assert_array_equal(two.returns(simulations, plans), expected)
    rewards, observations = one.play(simulations, plans)
    monkeypatch.setattr(oracle_module, "_MAX_NUM_BYTES", 3 * 2 * one._physics.num_bytes(15))
    np.testing.assert_array_equal(two.returns(simulations, plans), expected)
    chunked_rewards, chunked_observations = two.play(simulations, plans)
    np.testing.assert_array_equal(chunked_rewards, rewards)
    np.testing.assert_array_equal(chunked_observations["state"], observations["state"])
    two.close()


def test_each_reacher_is_scored_with_its_own_target():
    oracle = envs.Oracle("reacher-easy")
    reachers = [envs.make("reacher-easy") for _ in range(2)]
    for seed, env in enumerate(reachers):
        env.reset(seed=seed)
    for _ in range(2):  # again after a reset, which moves the targets
        targets = [env.simulation.model.geom("target").pos.copy() for env in reachers]
        assert not np.array_equal(*targets)
        plans = candidates(2, 3, 40, 2)
        rewards, observations = oracle.play([env.simulation for env in reachers], plans)
        for index, env in enumerate(reachers):
            steps = [env.step(action) for action in plans[index, 1]]
            np.testing.assert_array_equal(
                observations["state"][index, 1], [step[0]["state"] for step in steps]
            )
            np.testing.assert_array_equal(rewards[index, 1], [step[1] for step in steps])
            env.reset()


def test_rewards_and_the_terminal_value_are_discounted_per_agent_step(cheetah):
    seen = []

    def value(observation):
        seen.append(observation["state"])
        return np.arange(6, dtype=np.float32)

    oracle = envs.Oracle("cheetah-run", action_repeat=2, discount=0.9)
    pair = [cheetah.simulation, cheetah.simulation]
    plans = candidates(2, 3, 4, 6)
    rewards, observations = oracle.play(pair, plans)
    returns = oracle.returns(pair, plans, terminal_value=value)
    expected = rewards @ [1.0, 0.9, 0.81, 0.729] + 0.6561 * np.arange(6).reshape(2, 3)
    np.testing.assert_allclose(returns, expected, rtol=1e-12)
    np.testing.assert_array_equal(seen[0], observations["state"][:, :, -1].reshape(6, 17))


def test_a_violation_lowers_the_return_at_every_control_step(cheetah):
    oracle = envs.Oracle("cheetah-run", action_repeat=2)
    plans = candidates(1, 5, 10, 6)
    free = oracle.returns([cheetah.simulation], plans)
    always = oracle.returns(
        [cheetah.simulation],
        plans,
        violation=lambda readings: np.ones_like(readings.qpos[..., 0]),
        weight=0.5,
    )
    np.testing.assert_allclose(always, free - 0.5 * 20, rtol=1e-12)

    def effort(readings):
        return (readings.control**2).sum(axis=-1)

    costly = oracle.returns([cheetah.simulation], plans, violation=effort)
    # Cheetah's motors take actions as they are.
    np.testing.assert_allclose(costly, free - 2 * (plans.astype(float) ** 2).sum(axis=(2, 3)), rtol=1e-12)
    with pytest.raises(envs.EnvError, match=r"shape \(1, 5, 20, 9\).*\(1, 5, 20\)"):
        oracle.returns([cheetah.simulation], plans, violation=lambda readings: readings.qvel)


def test_physics_follow_changes_of_the_copy_and_of_the_environment(cheetah):
    """Weightless by `change_model` or in the environment itself: the same returns, to the bit."""
    plans = candidates(1, 3, 10, 6)
    plain = envs.Oracle("cheetah-run")
    weightless = envs.Oracle("cheetah-run", change_model=lambda model: model.opt.gravity.fill(0.0))
    on_earth, afloat = (
        oracle.play([cheetah.simulation], plans)[1]["state"] for oracle in (plain, weightless)
    )
    # Positions begin with the torso's height; half a gravity times (10 x 0.01 s) squared makes 5 cm.
    assert (afloat[..., -1, 0] - on_earth[..., -1, 0] > 0.01).all()
    cheetah.simulation.model.opt.gravity[:] = 0.0
    np.testing.assert_array_equal(plain.play([cheetah.simulation], plans)[1]["state"], afloat)


def test_changes_do_not_pile_up(cheetah):
    oracle = envs.Oracle(
        "cheetah-run", change_model=lambda model: model.body_mass.__imul__(np.full(model.nbody, 1.5))
    )
    plans = candidates(1, 3, 5, 6)
    first = oracle.returns([cheetah.simulation], plans)
    np.testing.assert_array_equal(oracle.returns([cheetah.simulation], plans), first)


@pytest.mark.parametrize("task", ["cheetah-run", "pendulum-swingup"])
@pytest.mark.parametrize("start_s", [0.0, 1.0])
def test_a_simulation_that_breaks_down_returns_nan(task, start_s):
    env = envs.make(task)
    env.reset(seed=0)
    simulation = env.simulation
    plans = candidates(1, 3, 4, simulation.model.nu)
    oracle = envs.Oracle(task)
    assert np.isfinite(oracle.returns([simulation], plans)).all()
    simulation.data.time = start_s
    simulation.data.qvel[:] = 1e12
    rewards, observations = oracle.play([simulation], plans)
    assert np.isnan(rewards).all()
    assert np.isnan(observations["state"]).all()
    assert np.isnan(oracle.returns([simulation], plans)).all()


@pytest.mark.parametrize("step", [0, 6, 9])
def test_only_the_candidate_that_breaks_down_is_nan(cheetah, step):
    plans = candidates(1, 3, 10, 6)
    oracle = envs.Oracle("cheetah-run", num_threads=2)
    expected = oracle.play([cheetah.simulation], plans)[0]
    plans[0, 1, step] = np.nan
    rewards, observations = oracle.play([cheetah.simulation], plans)
    np.testing.assert_array_equal(rewards[0, [0, 2]], expected[0, [0, 2]])
    np.testing.assert_array_equal(rewards[0, 1, :step], expected[0, 1, :step])
    assert np.isnan(rewards[0, 1, step:]).all()
    assert np.isfinite(observations["state"][0, 1, :step]).all()
    assert np.isnan(oracle.returns([cheetah.simulation], plans)).tolist() == [[False, True, False]]


def test_physics_steps_are_counted():
    env = envs.make("walker-walk")
    env.reset(seed=0)
    oracle = envs.Oracle("walker-walk", action_repeat=2)
    oracle.returns([env.simulation], candidates(1, 3, 4, 6))
    # 10 physics steps in each of 2 x 4 control steps, and one to read the last sensors.
    assert oracle.num_physics_steps == 3 * (10 * 2 * 4 + 1)


@pytest.mark.parametrize("shape", [(1, 5, 10, 3), (2, 5, 10, 6), (5, 10, 6), (1, 0, 10, 6), (1, 5, 0, 6)])
def test_wrong_candidates_are_told_with_both_shapes(cheetah, shape):
    oracle = envs.Oracle("cheetah-run")
    message = rf"cheetah-run.*\(1, candidates, horizon, 6\), got \({shape[0]}, {shape[1]}"
    with pytest.raises(envs.EnvError, match=message):
        oracle.returns([cheetah.simulation], np.zeros(shape, np.float32))


def test_a_terminal_value_of_a_wrong_shape_is_told(cheetah):
    oracle = envs.Oracle("cheetah-run")
    with pytest.raises(envs.EnvError, match=r"returned shape \(3, 1\).*\(3,\)"):
        oracle.returns(
            [cheetah.simulation], candidates(1, 3, 2, 6), terminal_value=lambda observation: np.zeros((3, 1))
        )


def test_simulations_of_other_tasks_are_refused(cheetah):
    with pytest.raises(envs.EnvError, match="another model"):
        envs.Oracle("walker-run").returns([cheetah.simulation], candidates(1, 2, 3, 6))
    with pytest.raises(envs.EnvError, match="no MuJoCo physics state"):
        _ = envs.make("Pendulum-v1").simulation


@pytest.mark.parametrize("wrong", [{"num_threads": 0}, {"action_repeat": 0}, {"discount": 1.5}])
def test_wrong_arguments_are_named(wrong):
    (name,) = wrong
    with pytest.raises(envs.EnvError, match=f"{name}="):
        envs.Oracle("cartpole-swingup", **wrong)


def test_positions_are_where_the_environment_will_be():
    env = envs.make("cheetah-run", action_repeat=2, seed=4)
    env.reset()
    oracle = envs.Oracle("cheetah-run", action_repeat=2)
    candidates = np.random.default_rng(0).uniform(-1, 1, (1, 3, 4, 6))
    told = oracle.positions([env.simulation], candidates)
    assert told.shape == (1, 3, 4, env.simulation.model.nq)
    for step in range(4):
        env.step(candidates[0, 1, step])
        np.testing.assert_array_equal(told[0, 1, step], env.simulation.data.qpos)
