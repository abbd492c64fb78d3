"""What agents and people see."""

import subprocess
import sys

import numpy as np
import pytest

import envs
from envs.rendering import egl_initialises, osmesa_loads

pytestmark = pytest.mark.skipif(
    not (egl_initialises() or osmesa_loads()), reason="no OpenGL library works here"
)


@pytest.mark.parametrize("task", ["walker-walk", "quadruped-escape", "HalfCheetah-v5", "Hopper-v5"])
def test_pixels_show_the_robot(task):
    env = envs.make(task, observe=("state", "pixels"), image_size=48)
    observation, _ = env.reset(seed=0)
    assert observation in env.observation_space
    assert observation["pixels"].shape == (3, 48, 48)
    assert observation["pixels"].dtype == np.uint8
    assert observation["pixels"].std() > 5
    kept = observation["pixels"].copy()
    for _ in range(10):
        later, *_ = env.step(env.action_space.high)
    np.testing.assert_array_equal(observation["pixels"], kept)
    assert np.abs(later["pixels"].astype(int) - kept).max() > 30  # it moved
    env.close()


def test_pixels_alone_are_deterministic():
    images = []
    for _ in range(2):
        env = envs.make("reacher-easy", seed=2, observe=("pixels",))
        observation, _ = env.reset()
        assert list(observation) == ["pixels"]
        images.append(observation["pixels"])
        env.close()
    np.testing.assert_array_equal(*images)


def test_terrain_of_a_new_episode_is_drawn():
    used, fresh = (envs.make("quadruped-escape", observe=("pixels",)) for _ in range(2))
    used.reset(seed=0)
    np.testing.assert_array_equal(used.reset(seed=1)[0]["pixels"], fresh.reset(seed=1)[0]["pixels"])
    used.close()
    fresh.close()


def test_render_gives_images_of_the_asked_size():
    env = envs.make("cartpole-swingup", render_size=(320, 200))
    env.reset()
    image = env.render()
    assert env.render_mode == "rgb_array"
    assert image.shape == (200, 320, 3)
    assert image.dtype == np.uint8
    assert image.std() > 5
    assert env.metadata["render_fps"] == pytest.approx(100)
    env.close()


def test_agents_see_no_shadows_but_people_do():
    env = envs.make("walker-stand", observe=("pixels",), image_size=200, render_size=(200, 200))
    observation, _ = env.reset(seed=0)
    difference = np.abs(observation["pixels"].transpose(1, 2, 0).astype(int) - env.render())
    assert difference.max() > 20
    env.close()


def test_images_are_upright():
    env = envs.make("walker-walk")
    env.reset(seed=0)
    image = env.render().astype(int)
    # The sky has stars, the floor is blue without them: brightest points stand in the upper half.
    rows, _ = np.nonzero(image.min(axis=2) > 220)
    assert np.median(rows) < image.shape[0] / 2
    env.close()


def test_cameras_by_name_and_number():
    views = []
    for camera in (None, 0, "side", 1, -1, "1", "-1"):
        env = envs.make("walker-walk", camera=camera)
        env.reset(seed=0)
        views.append(env.render())
        env.close()
    np.testing.assert_array_equal(views[0], views[1])
    np.testing.assert_array_equal(views[2], views[0])
    assert (views[3] != views[0]).any()
    assert (views[4] != views[0]).any()
    np.testing.assert_array_equal(views[5:], views[3:5])


def test_unknown_camera_lists_those_there_are():
    with pytest.raises(
        envs.RenderingError, match=r"'behind' does not exist: this task has \['side', 'back'\]"
    ):
        envs.make("walker-walk", camera="behind")
    with pytest.raises(envs.RenderingError, match="numbered 0 to 1"):
        envs.make("walker-walk", camera=2)


def test_nothing_is_printed_at_exit_when_nobody_closes():
    code = (
        "import envs\n"
        "for task in ('cartpole-swingup', 'quadruped-escape'):\n"
        "    env = envs.make(task, observe=('pixels',)); env.reset(); env.render()\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout + result.stderr == ""


def test_without_opengl_all_but_images_works():
    code = (
        "import envs\n"
        "env = envs.make('quadruped-escape'); env.reset(); env.step(env.action_space.sample())\n"
        "envs.make('HalfCheetah-v5').reset()\n"
        "try: env.render()\n"
        "except envs.RenderingError as error: print(error)\n"
    )
    environ = {"MUJOCO_GL": "off", "PATH": "/usr/bin"}
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environ
    )
    for package in ("libegl1", "libegl-mesa0", "libgl1-mesa-dri", "libosmesa6"):
        assert package in result.stdout
