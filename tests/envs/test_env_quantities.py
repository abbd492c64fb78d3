"""Physical quantities by name: of joints, and of what touches what."""

import numpy as np
import pytest

import envs


def drop_states():
    """The ball on the shelf, the box on the table, the capsule in the air; then the box in the air, too."""
    env = envs.make("drop")
    env.reset(seed=0)
    simulation = env.simulation
    data, shelf = simulation.data, simulation.model.geom("shelf")
    top = float(shelf.pos[2] + shelf.size[2])
    places = {"tray": (0.3, 0.1), "ball": (-0.4, top + 0.0549), "box": (0.0, 0.0499), "capsule": (0.3, 0.8)}
    data.qpos[:] = data.qvel[:] = 0.0
    states = []
    for box_z in (0.0499, 0.3):
        for name, (x, z) in (places | {"box": (0.0, box_z)}).items():
            data.joint(f"{name}_x").qpos[0], data.joint(f"{name}_z").qpos[0] = x, z
        states.append(simulation.state())
    return simulation, np.array(states)


def test_what_holds_things_up_is_told_after_the_rest():
    simulation, states = drop_states()
    before = simulation.state()
    found = envs.quantities(simulation, states)
    np.testing.assert_array_equal(simulation.state(), before)
    np.testing.assert_array_equal(found["shelf touches ball"], [1, 1])
    np.testing.assert_array_equal(found["table touches box"], [1, 0])
    touching = [name for name in found if "touches" in name]
    assert touching == list(found)[-2:] == ["table touches box", "shelf touches ball"]
    np.testing.assert_allclose(found["box_z"], [0.0499, 0.3])


def test_what_moves_touches_by_its_bodies():
    simulation, _ = drop_states()
    data = simulation.data
    data.joint("box_x").qpos[0], data.joint("box_z").qpos[0] = 0.3, 0.1 + 0.016 + 0.0499  # on the tray
    found = envs.quantities(simulation, simulation.state()[None])
    assert [name for name in found if "touches" in name] == ["tray touches box", "shelf touches ball"]


@pytest.mark.parametrize("task", ["walker-walk", "push"])
def test_floors_that_no_task_names_are_not_told_of(task):
    env = envs.make(task)
    env.reset(seed=0)
    states = []
    for _ in range(30):
        env.step(np.zeros(env.action_space.shape))
        states.append(env.physics_state())
    assert env.simulation.data.ncon > 0
    assert not [name for name in envs.quantities(env.simulation, np.array(states)) if "touches" in name]
