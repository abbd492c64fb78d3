"""The robot in 3D: where it is, and what may be dragged."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from mjviser import ViserMujocoScene
from viser.transforms import SO3

from worldmodel.apps.cockpit.future_scene import FutureScene
from worldmodel.apps.cockpit.ghosts import Ghosts, meshes_of
from worldmodel.apps.cockpit.kinematics import Bodies, Point
from worldmodel.apps.cockpit.loop import Frame
from worldmodel.apps.cockpit.moment import GoalMark
from worldmodel.apps.cockpit.session import Session
from worldmodel.apps.cockpit.viewpoint import Viewpoint, travelling_body

if TYPE_CHECKING:
    import mujoco
    import viser

OVERLAY = "/overlay"
_GRAB_COLOUR, _GOAL_COLOUR, _FORCE_COLOUR = (230, 80, 0), (0, 150, 60), (220, 20, 20)
_DRAWN_BY_EPISODES = ("geom_pos", "geom_quat", "geom_size", "geom_rgba", "site_pos", "site_size", "body_pos")
_GOAL_OPACITY = 0.35
_ARROW_LENGTH, _MAX_WEIGHTS = 0.35, 3.0  # robot sizes for each of its weights, of which so many are shown

Dragged = Callable[[np.ndarray | None], None]  # a place (3,) in the world; None: let go


class RobotScene:
    """One session's robot on a server; `close` clears the scene.

    - `pull`: told where the robot is dragged to.
    - `drag_goal`: told where the goal is dragged to.

    Attributes:
        follows: whether the view goes along with a robot that travels.
    """

    def __init__(
        self, server: viser.ViserServer, session: Session, *, pull: Dragged, drag_goal: Dragged
    ) -> None:
        self._server, self._session = server, session
        self.follows = True
        model = session.simulation.model
        self._travelling = travelling_body(model)
        self._offset = np.zeros(3)
        self._has_own_mark = session.goal is not None and session.goal.is_place
        self._model = self._looks(model)
        self.viewpoint = Viewpoint.of(session.simulation)
        self._robot = ViserMujocoScene(server, self._model, num_envs=1)
        self._robot.camera_tracking_enabled = False
        self._overlay = server.scene.add_frame(OVERLAY, show_axes=False)
        meshes = meshes_of(self._model)
        self.futures = FutureScene(server, f"{OVERLAY}/future", meshes, size_m=self.viewpoint.radius_m)
        self._goal_pose = Ghosts(
            server, f"{OVERLAY}/goal_pose", meshes, colour=_GOAL_COLOUR, opacities=np.array([_GOAL_OPACITY])
        )
        self._goal_mark: GoalMark | None = None
        self._grab = self._add_grab(pull)
        self._arrow = server.scene.add_arrows(
            f"{OVERLAY}/force",
            np.zeros((1, 2, 3), np.float32),
            _FORCE_COLOUR,
            shaft_radius=0.012 * self.viewpoint.radius_m,
            head_radius=0.03 * self.viewpoint.radius_m,
            head_length=0.07 * self.viewpoint.radius_m,
            visible=False,
        )
        self._is_pulling, self._is_dragging_goal = False, False
        self._goal = self._add_goal(drag_goal)

    def show(self, frame: Frame, now_s: float) -> None:
        """The robot between two moments, what is imagined, forces and the goal."""
        share, moment = frame.share(now_s), frame.moment
        bodies = _between(frame.before.bodies, moment.bodies, share)
        self._offset = -self._origin(bodies) if self.follows else np.zeros(3)
        with self._server.atomic():
            self._robot.update_from_arrays(
                (bodies.positions + self._offset)[None],
                SO3(bodies.quaternions).as_matrix()[None],
                env_idx=0,
            )
            # mjviser puts what never moves where it is without following; only the last word is sent.
            self._robot.fixed_bodies_frame.position = self._offset
            self._overlay.position = self._offset
            self.futures.show(frame.futures, frame.session.trail, self._origin(moment.bodies))
            self._show_hand(bodies, moment.force)
            self._show_goal(moment.goal)

    def _origin(self, bodies: Bodies) -> np.ndarray:
        """Where a robot that travels is, on the floor (3,); of others the origin itself."""
        if self._travelling is None:
            return np.zeros(3)
        return np.array([*bodies.positions[self._travelling, :2], 0.0])

    def look_again(self) -> None:
        """Draw again what a new episode has changed in the model."""
        model = self._looks(self._session.simulation.model)
        changed = [
            name
            for name in _DRAWN_BY_EPISODES
            if not np.array_equal(getattr(model, name), getattr(self._model, name))
        ]
        if changed:
            for name in changed:
                getattr(self._model, name)[:] = getattr(model, name)
            self._robot.rebuild_visual_handles()

    def close(self) -> None:
        """Clear the scene."""
        self._server.scene.reset()

    def _looks(self, model: mujoco.MjModel) -> mujoco.MjModel:
        """A copy to draw from (mjviser writes into it), without what has a mark that can be dragged."""
        looks = copy.copy(model)
        if self._has_own_mark:
            for geom in range(looks.ngeom):
                if (
                    looks.geom(geom).name == "target"
                    or looks.body(int(looks.geom_bodyid[geom])).name == "goal"
                ):
                    looks.geom_rgba[geom, 3] = 0.0
                    looks.geom_matid[geom] = -1
        return looks

    def _add_grab(self, pull: Dragged) -> Any:
        """A handle at the body that is pushed, which the mouse drags."""
        handle = self._server.scene.add_icosphere(
            f"{OVERLAY}/grab",
            radius=0.1 * self.viewpoint.radius_m,
            color=_GRAB_COLOUR,
            opacity=0.8,
            subdivisions=2,
            cast_shadow=False,
            receive_shadow=False,
        )

        async def dragged(event: Any) -> None:
            self._is_pulling = event.phase != "end"
            pull(np.asarray(event.end_position) - self._offset if self._is_pulling else None)

        handle.on_drag("left")(dragged)
        return handle

    def _add_goal(self, drag_goal: Dragged) -> Any:
        goal = self._session.goal
        if goal is None or not goal.is_place:
            return None
        self._server.scene.add_icosphere(
            f"{OVERLAY}/goal/mark",
            radius=goal.radius_m,
            color=_GOAL_COLOUR,
            opacity=0.6,
            cast_shadow=False,
            receive_shadow=False,
        )
        handle = self._server.scene.add_transform_controls(
            f"{OVERLAY}/goal",
            scale=0.35 * self.viewpoint.radius_m,
            disable_rotations=True,
            active_axes=(True, True, len(goal.labels) > 2),
            depth_test=False,
            position=goal.place(),
        )

        async def dragged(event: Any) -> None:
            self._is_dragging_goal = event.phase != "end"
            drag_goal(np.asarray(event.target.position, np.float64))

        handle.on_update(dragged)
        return handle

    def _show_hand(self, bodies: Bodies, force: np.ndarray) -> None:
        hand, model = self._session.hand, self._model
        place = bodies.place(
            Point(name=hand.body, body=hand.body_index, offset=model.body_ipos[hand.body_index])
        )
        if not self._is_pulling:
            self._grab.position = place
        weights = float(np.linalg.norm(force)) / hand.weight_n
        self._arrow.visible = weights > 0
        if weights > 0:
            length = _ARROW_LENGTH * self.viewpoint.radius_m * min(weights, _MAX_WEIGHTS)
            tip = place + length * force / np.linalg.norm(force)
            self._arrow.points = np.stack([place, tip])[None].astype(np.float32)

    def _show_goal(self, mark: GoalMark | None) -> None:
        if mark is self._goal_mark or mark is None:
            return
        self._goal_mark = mark
        if self._goal is not None and not self._is_dragging_goal:
            self._goal.position = mark.place
        if mark.pose is not None:
            self._goal_pose.show(mark.pose[None])


def _between(before: Bodies, after: Bodies, share: float) -> Bodies:
    """So far on the way from one to the other."""
    sign = np.where((before.quaternions * after.quaternions).sum(-1, keepdims=True) < 0, -1.0, 1.0)
    quaternions = (1 - share) * sign * before.quaternions + share * after.quaternions
    return Bodies(
        positions=(1 - share) * before.positions + share * after.positions,
        quaternions=quaternions / np.linalg.norm(quaternions, axis=-1, keepdims=True),
    )
