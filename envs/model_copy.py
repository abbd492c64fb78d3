"""A MuJoCo model with added sensors, and copies of it that follow an environment's live model."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from envs.batch_task import Sensor, SensorPlace
from envs.errors import EnvError

if TYPE_CHECKING:
    import mujoco

# Fields that pictures, names and sensors need: no part of the physics, and different with sensors added.
_FIELDS_LEFT_ALONE = ("tex_", "mat_", "skin_", "names", "name_", "sensor_")


class ModelCopy:
    """A copy of the template that follows the live model of one environment."""

    def __init__(self, template: mujoco.MjModel) -> None:
        self.model = copy.copy(template)
        self._live: mujoco.MjModel | None = None
        self._pairs: list[tuple[np.ndarray, np.ndarray]] = []

    def sync(self, live: mujoco.MjModel) -> None:
        """Take over what `reset` or the user has changed in the live model."""
        for own, other in self._pairs_with(live):
            own[...] = other
        _copy_structs(live, self.model)

    def copy_to(self, live: mujoco.MjModel) -> None:
        """Change the live model to what this one is."""
        for own, other in self._pairs_with(live):
            other[...] = own
        _copy_structs(self.model, live)

    def _pairs_with(self, live: mujoco.MjModel) -> list[tuple[np.ndarray, np.ndarray]]:
        if live is not self._live:
            self._pairs = self._matching_arrays(live)
            self._live = live
        return self._pairs

    def _matching_arrays(self, live: mujoco.MjModel) -> list[tuple[np.ndarray, np.ndarray]]:
        pairs = []
        for name in _public_names(type(self.model)):
            if name.startswith(_FIELDS_LEFT_ALONE):
                continue
            own, other = getattr(self.model, name), getattr(live, name)
            if not isinstance(own, np.ndarray):
                continue
            if own.shape != other.shape:
                raise EnvError(
                    f"A simulation has another model than this physics: {name} is {other.shape} there and "
                    f"{own.shape} here; pass simulations of the same task"
                )
            if own.size:
                pairs.append((own, other))
        return pairs


def _copy_structs(source: mujoco.MjModel, target: mujoco.MjModel) -> None:
    for struct in ("opt", "stat"):
        from_struct, to_struct = getattr(source, struct), getattr(target, struct)
        for name in _public_names(type(to_struct)):
            setattr(to_struct, name, getattr(from_struct, name))


def _public_names(kind: type) -> list[str]:
    return [name for name in dir(kind) if not name.startswith("_")]


def copy_model(source: mujoco.MjModel, target: mujoco.MjModel) -> None:
    """Make one model what another of the same kind is, names and looks of surfaces aside."""
    ModelCopy(source).copy_to(target)


def compile_with_sensors(spec: mujoco.MjSpec, sensors: Mapping[str, Sensor]) -> mujoco.MjModel:
    """Compile a model with sensors added to its own, which come first; nothing else is changed by them."""
    import mujoco

    for name, sensor in sensors.items():
        frame = (
            {"reftype": mujoco.mjtObj.mjOBJ_XBODY, "refname": sensor.seen_from} if sensor.seen_from else {}
        )
        spec.add_sensor(
            name=name,
            type=getattr(mujoco.mjtSensor, f"mjSENS_{sensor.kind.upper()}"),
            objtype=getattr(mujoco.mjtObj, f"mjOBJ_{sensor.object_kind.upper()}"),
            objname=sensor.name,
            **frame,
        )
    for texture in list(spec.textures):
        # The sky takes 12 MB in each copy of the model.
        if texture.type == mujoco.mjtTexture.mjTEXTURE_SKYBOX:
            spec.delete(texture)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # deprecated attributes in the suite's models
        return spec.compile()


def sensor_places(model: mujoco.MjModel) -> dict[str, SensorPlace]:
    """Where each sensor of a model stands in `sensordata`, by name."""
    import mujoco

    places = {}
    for index in range(model.nsensor):
        start = int(model.sensor_adr[index])
        is_acceleration_stage = model.sensor_needstage[index] == mujoco.mjtStage.mjSTAGE_ACC.value
        entries = slice(start, start + int(model.sensor_dim[index]))
        places[model.sensor(index).name] = SensorPlace(entries, bool(is_acceleration_stage))
    return places
