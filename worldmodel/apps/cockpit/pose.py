"""Joint positions as features that can be read out of a latent, and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    import mujoco

Known = Literal["position", "velocity", "nothing"]  # what of a part of a pose can be read

_LEAST_R2 = 0.5  # below, a position is not known (how far a runner has come, say)
_LEAST_VELOCITY_R2 = 0.3


@dataclass(frozen=True, kw_only=True)
class Part:
    """One coordinate of a pose: a `value`, an `angle` without limits, or a `rotation` (a quaternion)."""

    kind: Literal["value", "angle", "rotation"]
    qpos: slice
    dof: slice
    features: slice


class PoseFeatures:
    """The features of joint positions and velocities: values, sines and cosines, quaternions, velocities.

    Attributes:
        parts: of the pose, in the order of the joints.
        dim: how many features of the pose there are; velocities follow.
    """

    def __init__(self, model: mujoco.MjModel) -> None:
        self._model = model
        self.parts: list[Part] = []
        self.dim = 0
        self._add_joints()

    def __call__(self, qpos: np.ndarray, qvel: np.ndarray) -> np.ndarray:
        """Of positions (..., nq) and velocities (..., nv): (..., dim + nv)."""
        columns = []
        for part in self.parts:
            value = qpos[..., part.qpos]
            if part.kind == "angle":
                columns += [np.sin(value), np.cos(value)]
            elif part.kind == "rotation":  # a quaternion and its negative are one rotation
                columns.append(value * np.where(value[..., :1] < 0, -1.0, 1.0))
            else:
                columns.append(value)
        return np.concatenate([*columns, qvel], axis=-1)

    def known(self, r2: np.ndarray) -> list[Known]:
        """What of each part can be read, given the R2 of each feature."""
        found: list[Known] = []
        for part in self.parts:
            velocity = r2[self.dim :][part.dof]
            if r2[part.features].mean() >= _LEAST_R2:
                found.append("position")
            else:
                found.append("velocity" if velocity.mean() >= _LEAST_VELOCITY_R2 else "nothing")
        return found

    def positions(
        self,
        features: np.ndarray,
        known: list[Known],
        qpos: np.ndarray,
        qvel: np.ndarray,
        period_s: float,
    ) -> np.ndarray:
        """Poses along imagined steps, the first of which is now: (..., step, dim + nv) -> (..., step, nq).

        They go on from the pose (nq,) and velocities (nv,) that are seen now by what changes in the features;
        where a position is not known, by its velocity.
        """
        import mujoco

        changes = np.zeros((*features.shape[:-1], self._model.nv))
        for part, what in zip(self.parts, known, strict=True):
            if what == "position":
                changes[..., part.dof] = _changes(part.kind, features[..., part.features])
            elif what == "velocity":
                read = features[..., self.dim :][..., part.dof]
                velocity = read - read[..., :1, :] + qvel[part.dof]
                steps = period_s * (velocity[..., :-1, :] + velocity[..., 1:, :]) / 2
                changes[..., 1:, part.dof] = steps.cumsum(axis=-2)
        rows = changes.reshape(-1, self._model.nv)
        poses = np.tile(qpos, (len(rows), 1))
        for pose, change in zip(poses, rows, strict=True):
            mujoco.mj_integratePos(self._model, pose, change, 1.0)
        return poses.reshape(*features.shape[:-1], -1)

    def _add_joints(self) -> None:
        import mujoco

        model, kinds = self._model, mujoco.mjtJoint
        for joint in range(model.njnt):
            at, dof = int(model.jnt_qposadr[joint]), int(model.jnt_dofadr[joint])
            kind = model.jnt_type[joint]
            if kind == kinds.mjJNT_FREE.value:
                for axis in range(3):
                    self._add("value", at + axis, dof + axis)
                self._add("rotation", at + 3, dof + 3)
            elif kind == kinds.mjJNT_BALL.value:
                self._add("rotation", at, dof)
            elif kind == kinds.mjJNT_HINGE.value and not model.jnt_limited[joint]:
                self._add("angle", at, dof)
            else:
                self._add("value", at, dof)

    def _add(self, kind: Literal["value", "angle", "rotation"], qpos: int, dof: int) -> None:
        in_qpos, in_dof, width = {"value": (1, 1, 1), "angle": (1, 1, 2), "rotation": (4, 3, 4)}[kind]
        self.parts.append(
            Part(
                kind=kind,
                qpos=slice(qpos, qpos + in_qpos),
                dof=slice(dof, dof + in_dof),
                features=slice(self.dim, self.dim + width),
            )
        )
        self.dim += width


def _changes(kind: str, features: np.ndarray) -> np.ndarray:
    """Since the first step, in degrees of freedom: (..., step, feature) -> (..., step, dof)."""
    if kind == "value":
        return features - features[..., :1, :]
    if kind == "angle":
        angle = np.unwrap(np.arctan2(features[..., :1], features[..., 1:]), axis=-2)
        return angle - angle[..., :1, :]
    quaternion = features / np.linalg.norm(features, axis=-1, keepdims=True).clip(1e-9)
    return _rotation_vector(_since_first(quaternion))


def _since_first(quaternion: np.ndarray) -> np.ndarray:
    """The rotation from the first step's to each step's orientation, in the first one's frame."""
    w0, v0 = quaternion[..., :1, :1], -quaternion[..., :1, 1:]  # the inverse
    w, v = quaternion[..., :1], quaternion[..., 1:]
    scalar = w0 * w - (v0 * v).sum(-1, keepdims=True)
    return np.concatenate([scalar, w0 * v + w * v0 + np.cross(np.broadcast_to(v0, v.shape), v)], axis=-1)


def _rotation_vector(quaternion: np.ndarray) -> np.ndarray:
    quaternion = quaternion * np.where(quaternion[..., :1] < 0, -1.0, 1.0)
    sine = np.linalg.norm(quaternion[..., 1:], axis=-1, keepdims=True)
    angle = 2 * np.arctan2(sine, quaternion[..., :1])
    return quaternion[..., 1:] / sine.clip(1e-9) * angle
