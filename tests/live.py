"""What of MuJoCo some versions have and others have not."""

import pytest

from envs.live_physics import has_live_physics

needs_batch = pytest.mark.skipif(not has_live_physics(), reason="mujoco.batch came with MuJoCo 3.17")
