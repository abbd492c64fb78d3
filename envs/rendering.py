"""Images of a MuJoCo simulation without a screen: which OpenGL library, and how much quality.

MuJoCo's default quality (4 samples per pixel, 4096 x 4096 shadow maps, reflections) takes 30 times longer on
a CPU than `FAST` does, at 64 x 64 pixels. The quality changes the pixels, so a dataset must not mix them.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import os
import re
import sys
import weakref
from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from envs.errors import RenderingError

if TYPE_CHECKING:
    import mujoco

    from envs.simulation import Simulation

# The one spelling of "no rendering" that both mujoco and dm_control accept and that says what it does.
NO_BACKEND = "off"
_NO_BACKEND_SPELLINGS = ("off", "disable", "disabled", "false", "0")
_EGL_PLATFORM_DEVICE_EXT = 0x313F
_MAX_NUM_EGL_DEVICES = 32
_WAY_OUT = (
    "on Debian or Ubuntu run `apt-get install libegl1 libegl-mesa0 libgl1-mesa-dri` (EGL), or "
    "`apt-get install libosmesa6` (OSMesa), and start Python again without MUJOCO_GL"
)


def choose_gl_backend(environ: MutableMapping[str, str] = os.environ, platform: str = sys.platform) -> str:
    """Set MUJOCO_GL and PYOPENGL_PLATFORM to a library that works here; returns MUJOCO_GL ('' if left alone).

    EGL if it initialises, else OSMesa if it loads, else 'off': everything but rendering then works. Both
    variables are read when mujoco, dm_control or OpenGL are first imported, so this must run before. A choice
    of the user's is respected; other systems than Linux choose well by themselves.
    """
    chosen = environ.get("MUJOCO_GL", "")
    if not platform.startswith("linux"):
        return chosen
    wanted_platform = environ.get("PYOPENGL_PLATFORM", "").lower()
    if not chosen:
        if wanted_platform in ("", "egl") and egl_initialises():
            chosen = "egl"
        elif wanted_platform in ("", "osmesa") and osmesa_loads():
            chosen = "osmesa"
        else:
            chosen = NO_BACKEND
        environ["MUJOCO_GL"] = chosen
    # MuJoCo refuses a pair that disagrees; where the user set both, that message is the right one.
    if chosen.lower() in ("egl", "osmesa") and not wanted_platform:
        environ["PYOPENGL_PLATFORM"] = chosen.lower()
    return chosen


def egl_initialises() -> bool:
    """Whether an EGL device can be initialised: the library alone may lack its driver (~50 ms)."""
    try:
        egl = ctypes.CDLL("libEGL.so.1")
        egl.eglGetProcAddress.restype = ctypes.c_void_p
        query_address = egl.eglGetProcAddress(b"eglQueryDevicesEXT")
        display_address = egl.eglGetProcAddress(b"eglGetPlatformDisplayEXT")
    except (OSError, AttributeError):
        return False
    if not query_address or not display_address:
        return False
    devices = (ctypes.c_void_p * _MAX_NUM_EGL_DEVICES)()
    num_devices = ctypes.c_int()
    int_pointer = ctypes.POINTER(ctypes.c_int)
    query = ctypes.CFUNCTYPE(ctypes.c_uint, ctypes.c_int, ctypes.POINTER(ctypes.c_void_p), int_pointer)(
        query_address
    )
    if not query(_MAX_NUM_EGL_DEVICES, devices, ctypes.byref(num_devices)):
        return False
    display_of = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_uint, ctypes.c_void_p, ctypes.c_void_p)(
        display_address
    )
    egl.eglInitialize.argtypes = [ctypes.c_void_p] * 3
    # The display stays initialised: it is shared within the process, and someone may already use it.
    for device in devices[: num_devices.value]:
        display = display_of(_EGL_PLATFORM_DEVICE_EXT, device, None)
        if display and egl.eglInitialize(display, None, None):
            return True
    return False


def osmesa_loads() -> bool:
    """Whether a library named as PyOpenGL would look for it can be loaded."""
    for name in ("libOSMesa.so.8", "libOSMesa.so.6", "libOSMesa.so"):
        with contextlib.suppress(OSError):
            ctypes.CDLL(name)
            return True
    return False


@dataclass(frozen=True, kw_only=True)
class Quality:
    """How much work goes into a pixel.

    Attributes:
        num_samples: antialiasing samples per pixel (0: none).
        shadow_map_size: pixels along each side of a light's shadow map (0: no shadows).
        has_reflections: whether reflective floors mirror the robot.
    """

    num_samples: int
    shadow_map_size: int
    has_reflections: bool


FAST = Quality(num_samples=0, shadow_map_size=0, has_reflections=False)  # what agents see
VIDEO = Quality(num_samples=0, shadow_map_size=1024, has_reflections=True)  # what people see

_open_renderers: weakref.WeakSet[SceneRenderer] = weakref.WeakSet()


class SceneRenderer:
    """Draws a simulation, seen by one camera; the OpenGL context is made with the first image.

    `shown_group`: a group of geoms that is drawn besides those that MuJoCo shows anyway (0 to 2).
    """

    def __init__(
        self,
        simulation: Simulation,
        *,
        width: int,
        height: int,
        camera: mujoco.MjvCamera,
        quality: Quality,
        shown_group: int | None = None,
    ) -> None:
        self._simulation = simulation
        self._width, self._height = width, height
        self._camera = camera
        self._quality, self._shown_group = quality, shown_group
        self._gl: Any = None
        self._context: Any = None
        self._scene: Any = None

    def render(self) -> np.ndarray:
        """Image of the current physics state: uint8 (H, W, 3).

        Raises:
            RenderingError: no OpenGL context could be made.
        """
        import mujoco

        if self._context is None:
            self._open()
        self._gl.make_current()
        model, data = self._simulation.model, self._simulation.data
        everything = mujoco.mjtCatBit.mjCAT_ALL.value
        mujoco.mjv_updateScene(model, data, self._options, None, self._camera, everything, self._scene)
        flags = mujoco.mjtRndFlag
        self._scene.flags[flags.mjRND_SHADOW] = self._quality.shadow_map_size > 0
        self._scene.flags[flags.mjRND_REFLECTION] = self._quality.has_reflections
        mujoco.mjr_render(self._rect, self._scene, self._context)
        image = np.empty((self._height, self._width, 3), np.uint8)
        mujoco.mjr_readPixels(image, None, self._rect, self._context)
        return np.ascontiguousarray(image[::-1])  # OpenGL counts rows from below

    def model_changed(self) -> None:
        """Upload the terrain again; a new episode may have drawn a new one."""
        import mujoco

        if self._context is None or not self._simulation.model.nhfield:
            return
        self._gl.make_current()
        for index in range(self._simulation.model.nhfield):
            mujoco.mjr_uploadHField(self._simulation.model, self._context, index)

    def close(self) -> None:
        """Free the OpenGL context; the next image makes a new one."""
        if self._context is not None:
            self._gl.make_current()
            self._context.free()
            self._gl.free()
        self._context = self._gl = None
        _open_renderers.discard(self)

    def _open(self) -> None:
        import mujoco

        model = self._simulation.model
        self._gl = _make_gl_context(self._width, self._height)
        self._gl.make_current()
        # The context copies these when it is made. They are put back, since the model may be rendered by
        # others, at another quality.
        shared = model.vis.quality.offsamples, model.vis.quality.shadowsize
        size = model.vis.global_.offwidth, model.vis.global_.offheight
        model.vis.quality.offsamples = self._quality.num_samples
        model.vis.quality.shadowsize = self._quality.shadow_map_size
        model.vis.global_.offwidth, model.vis.global_.offheight = self._width, self._height
        try:
            self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100.value)
        except Exception as error:
            raise _rendering_error(error) from error
        finally:
            model.vis.quality.offsamples, model.vis.quality.shadowsize = shared
            model.vis.global_.offwidth, model.vis.global_.offheight = size
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self._context)
        self._scene = mujoco.MjvScene(model, maxgeom=10_000)
        self._options = mujoco.MjvOption()
        if self._shown_group is not None:
            self._options.geomgroup[self._shown_group] = 1
        self._rect = mujoco.MjrRect(0, 0, self._width, self._height)
        _open_renderers.add(self)


def _make_gl_context(width: int, height: int) -> Any:
    backend = os.environ.get("MUJOCO_GL", "").lower()
    if backend in _NO_BACKEND_SPELLINGS:
        raise RenderingError(f"Rendering is off (MUJOCO_GL={backend}): no OpenGL library works. {_WAY_OUT}")
    try:
        # By name, not mujoco.GLContext: that one was fixed when mujoco was imported, maybe before envs.
        if backend == "egl":
            from mujoco.egl import GLContext
        elif backend == "osmesa":
            from mujoco.osmesa import GLContext
        else:
            from mujoco import GLContext
        context = GLContext(width, height)
    except Exception as error:  # each backend has errors of its own, down to AttributeError in PyOpenGL
        raise _rendering_error(error) from error
    # At exit, contexts must go before the display does. mujoco.egl registered the display's end when the
    # context above was made, and exit handlers run backwards: registering now puts ours first.
    atexit.unregister(_close_all)
    atexit.register(_close_all)
    return context


def _rendering_error(error: Exception) -> RenderingError:
    backend = os.environ.get("MUJOCO_GL", "")
    return RenderingError(f"No image could be made with MUJOCO_GL={backend!r} ({error}): {_WAY_OUT}")


def _close_all() -> None:
    for renderer in list(_open_renderers):
        with contextlib.suppress(Exception):  # the process ends; nobody could act on it
            renderer.close()


def find_camera(simulation: Simulation, camera: str | int | None, default: mujoco.MjvCamera) -> Any:
    """The camera of this name or number (-1: free, shows everything); `default` for None.

    Raises:
        RenderingError: there is none; lists those of the model.
    """
    import mujoco

    if camera is None:
        return default
    model = simulation.model
    names = [model.camera(index).name for index in range(model.ncam)]
    found = mujoco.MjvCamera()
    if isinstance(camera, str) and camera not in names and re.fullmatch(r"-?\d+", camera):
        camera = int(camera)  # as command lines have it
    if camera == -1:
        mujoco.mjv_defaultFreeCamera(model, found)
        return found
    index = names.index(camera) if camera in names else camera
    if not isinstance(index, int) or not 0 <= index < model.ncam:
        there = f"{names}, numbered 0 to {model.ncam - 1}" if names else "none"
        raise RenderingError(f"Camera {camera!r} does not exist: this task has {there}; -1 is a free camera")
    found.type = mujoco.mjtCamera.mjCAMERA_FIXED.value
    found.fixedcamid = index
    return found
