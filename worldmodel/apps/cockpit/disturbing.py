"""Controls of what disturbs a robot: another goal, pushes, other physics."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from worldmodel.apps.cockpit.controls import Controls
from worldmodel.apps.cockpit.loop import Command
from worldmodel.apps.cockpit.session import Session

_DIRECTIONS = {
    "-x": (-1.0, 0.0, 0.0), "+x": (1.0, 0.0, 0.0), "-y": (0.0, -1.0, 0.0), "+y": (0.0, 1.0, 0.0),
    "up": (0.0, 0.0, 1.0),
}  # fmt: skip
_PUSH_WEIGHTS, _MAX_PUSH_WEIGHTS = 1.5, 8.0  # of the robot's own
_FACTOR_HINTS = {
    "gravity": "How strongly everything falls, times the usual.",
    "mass": "How heavy all that moves is, times the usual.",
    "friction": "How much all surfaces rub, times the usual.",
}


class GoalControls:
    """The numbers of a goal."""

    def __init__(self, controls: Controls, session: Session) -> None:
        assert session.goal is not None
        self._goal, self._shown = session.goal, session.moment.goal
        hint = "Where the goal is until the episode ends; the plan follows at once."
        if self._goal.is_place:
            hint += " In the scene it can be dragged, too."
        with controls.gui.add_folder("Goal"):
            self._sliders = [
                controls.slider(label, bounds, 0.0, hint, step=0.005)
                for label, bounds in zip(self._goal.labels, self._goal.bounds, strict=True)
            ]
        self._set()

        def moved(value: Any) -> Command:
            numbers = np.array([slider.value for slider in self._sliders], np.float64)
            return lambda session: session.move_goal(numbers)

        for slider in self._sliders:
            controls.when_do(slider, moved)

    def refresh(self, session: Session) -> None:
        """Follow a goal that was moved otherwise."""
        if session.moment.goal is not self._shown:
            self._shown = session.moment.goal
            self._set()

    def _set(self) -> None:
        for slider, number, (low, high) in zip(
            self._sliders, self._goal.numbers(), self._goal.bounds, strict=True
        ):
            slider.value = round(float(np.clip(number, low, high)), 3)


def add_hand(controls: Controls, session: Session) -> None:
    """Pushes."""
    hand, gui = session.hand, controls.gui
    weight_n = hand.weight_n
    with gui.add_folder("Push the robot"):
        push = gui.add_button_group(
            "push",
            tuple(_DIRECTIONS),
            hint="Push the body in this direction, with the force and for the time below. No planner knows "
            "of it. In the scene, drag the orange ball to pull.",
        )
        force = controls.slider(
            "force (N)",
            (0.0, _rounded(_MAX_PUSH_WEIGHTS * weight_n)),
            _rounded(_PUSH_WEIGHTS * weight_n),
            f"How hard a push is; the robot weighs {weight_n:.3g} N.",
            step=_rounded(weight_n / 20),
        )
        duration = controls.slider(
            "for (s)", (0.02, 1.0), 0.2, "How long a push lasts, of the robot's time.", step=0.02
        )
        body = gui.add_dropdown(
            "body", hand.bodies, initial_value=hand.body, hint="The body that is pushed and pulled."
        )

    @push.on_click
    def _(event: Any) -> None:
        vector = force.value * np.array(_DIRECTIONS[push.value])
        controls.loop.do(lambda session: session.push(vector, duration.value))

    controls.when_do(body, lambda value: lambda session: session.hand.choose(value))


def add_factors(controls: Controls, session: Session) -> None:
    """Gravity, mass and friction."""
    live = session.live
    knows = (
        " The simulator plans with what it is turned to."
        if session.subject.is_oracle
        else " The model was trained with what is usual: watch it be surprised."
    )
    with controls.gui.add_folder("Change the physics"):
        sliders = {
            name: controls.slider(
                f"{name} (x)",
                (factor.low, factor.high),
                live.values[name],
                _FACTOR_HINTS[name] + knows,
                step=0.05,
            )
            for name, factor in live.factors.items()
        }
        usual = controls.gui.add_button("As usual", hint="Gravity, mass and friction as they were.")
    for name, slider in sliders.items():
        controls.when_do(slider, partial(_turning, name))

    @usual.on_click
    def _(event: Any) -> None:
        for name, slider in sliders.items():
            slider.value = live.factors[name].default
            controls.loop.do(_turning(name, live.factors[name].default))


def _turning(name: str, value: float) -> Command:
    return lambda session: session.turn_factor(name, value)


def _rounded(value: float) -> float:
    """To two digits."""
    return float(f"{value:.2g}")
