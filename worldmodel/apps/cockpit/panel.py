"""The controls of the page, each with a tooltip that says what it does."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from worldmodel.apps.cockpit.choices import ORACLE
from worldmodel.apps.cockpit.knobs import KNOBS, planner_names
from worldmodel.apps.cockpit.loop import Loop
from worldmodel.apps.cockpit.scene import RobotScene
from worldmodel.apps.cockpit.session import Session

if TYPE_CHECKING:
    import viser

_DIRECTIONS = {
    "-x": (-1.0, 0.0, 0.0), "+x": (1.0, 0.0, 0.0), "-y": (0.0, -1.0, 0.0), "+y": (0.0, 1.0, 0.0),
    "up": (0.0, 0.0, 1.0),
}  # fmt: skip
_PUSH_WEIGHTS, _MAX_PUSH_WEIGHTS = 1.5, 8.0  # of the robot's own
_FACTOR_HINTS = {
    "gravity": "How strongly everything falls, times the usual. A learned model knows of 1 alone: watch it be surprised.",
    "mass": "How heavy all that moves is, times the usual. A learned model knows of 1 alone.",
    "friction": "How much all surfaces rub, times the usual. A learned model knows of 1 alone.",
}


class Panel:
    """Controls of one session, in the GUI container that is open when it is made.

    - `choose`: called with a model and a task that were chosen.
    """

    def __init__(
        self,
        server: viser.ViserServer,
        loop: Loop,
        session: Session,
        scene: RobotScene,
        *,
        model: str,
        models: list[str],
        tasks: list[str],
        choose: Callable[[str, str], None],
    ) -> None:
        self._gui, self._loop, self._session, self._scene = server.gui, loop, session, scene
        self._choose = choose
        self.status = self._gui.add_markdown("")
        self._add_run()
        self._add_planner(model, models, tasks)
        if session.goal is not None:
            self._add_goal()
        self._add_hand()
        self._add_factors()
        self._add_view()
        self._gui.add_markdown(f"<small>{session.ordinary.told}</small>")

    def refresh(self) -> None:
        """What changes by itself: the goal's numbers, and whether a video is being recorded."""
        self._record.label = "Stop recording" if self._loop.is_recording else "Record mp4"
        goal = self._session.goal
        if goal is not None and self._loop.frame is not None and self._loop.frame.moment.goal is not self._mark:
            self._mark = self._loop.frame.moment.goal
            for slider, number, (low, high) in zip(self._goal_sliders, goal.numbers(), goal.bounds, strict=True):
                slider.value = round(float(np.clip(number, low, high)), 3)

    def _add_run(self) -> None:
        loop = self._loop
        with self._gui.add_folder("Run"):
            run = self._gui.add_button_group(
                "run",
                ("Play", "Pause", "Step", "Reset"),
                hint="Play: decide and act on the robot's clock. Pause: hold still. Step: one decision. Reset: "
                "start the next episode.",
            )
            speed = self._slider(
                "speed", 0.05, 3.0, 0.05, loop.speed,
                "Times the robot's own pace; where the planner takes longer than that, it is slower.",
            )  # fmt: skip

        @run.on_click
        def _(event: Any) -> None:
            if run.value in ("Play", "Pause"):
                loop.is_playing = run.value == "Play"
            elif run.value == "Step":
                loop.step()
            else:
                loop.do(lambda session: session.reset())

        self._when(speed, lambda value: setattr(loop, "speed", value))

    def _add_planner(self, model: str, models: list[str], tasks: list[str]) -> None:
        session, loop = self._session, self._loop
        config = session.planner_config
        with self._gui.add_folder("Who plans"):
            models = models if model in models else [model, *models]
            of_model = self._gui.add_dropdown(
                "model",
                models,
                initial_value=model,
                hint="A trained model that imagines in its latent space, or the oracle: the simulator itself.",
            )
            tasks = tasks if session.task in tasks else [session.task, *tasks]
            of_task = self._gui.add_dropdown(
                "task",
                tasks,
                initial_value=session.task,
                disabled=model != ORACLE,
                hint="What is to be done. A trained model has its own; with the oracle, choose any of these.",
            )
            name = str(config["name"])
            names = planner_names()
            of_planner = self._gui.add_dropdown(
                "planner",
                names if name in names else [name, *names],
                initial_value=name,
                hint="The algorithm that draws action sequences, scores them and draws better ones.",
            )
            self._knobs = {
                key: self._slider(
                    knob.label, knob.low, max(knob.high, config.get(key, 0)), knob.step, config.get(key, knob.low),
                    knob.hint, disabled=key not in config,
                )
                for key, knob in KNOBS.items()
            }  # fmt: skip
        for key, slider in self._knobs.items():
            self._when(slider, lambda value, key=key: loop.do(lambda session: session.turn_planner(key, value)))

        def planner_chosen(name: str) -> None:
            def choose(session: Session) -> None:
                session.choose_planner(name)
                for key, slider in self._knobs.items():
                    slider.disabled = key not in session.planner_config
                    if not slider.disabled:
                        slider.value = session.planner_config[key]

            loop.do(choose)

        self._when(of_planner, planner_chosen)
        self._when(of_model, lambda value: self._choose(value, of_task.value))
        self._when(of_task, lambda value: self._choose(of_model.value, value))

    def _add_goal(self) -> None:
        goal, loop = self._session.goal, self._loop
        assert goal is not None
        hint = "Where the goal is until the episode ends; the plan follows at once."
        if goal.is_place:
            hint += " In the scene it can be dragged, too."
        self._mark: Any = None
        with self._gui.add_folder("Goal"):
            self._goal_sliders = [
                self._slider(label, low, high, 0.005, round(float(np.clip(number, low, high)), 3), hint)
                for label, (low, high), number in zip(goal.labels, goal.bounds, goal.numbers(), strict=True)
            ]

        def moved(value: Any) -> None:
            numbers = np.array([slider.value for slider in self._goal_sliders], np.float64)
            loop.do(lambda session: session.move_goal(numbers))

        for slider in self._goal_sliders:
            self._when(slider, moved)

    def _add_hand(self) -> None:
        hand, loop = self._session.hand, self._loop
        weight_n = hand.weight_n
        with self._gui.add_folder("Push the robot"):
            push = self._gui.add_button_group(
                "push",
                tuple(_DIRECTIONS),
                hint="Push the body in this direction, with the force and for the time below. No planner knows of it. "
                "In the scene, drag the orange ball to pull.",
            )
            force = self._slider(
                "force (N)", 0.0, _round(_MAX_PUSH_WEIGHTS * weight_n), _round(weight_n / 20),
                _round(_PUSH_WEIGHTS * weight_n), f"How hard a push is; the robot weighs {weight_n:.3g} N.",
            )  # fmt: skip
            duration = self._slider("for (s)", 0.02, 1.0, 0.02, 0.2, "How long a push lasts, of the robot's time.")
            body = self._gui.add_dropdown(
                "body", hand.bodies, initial_value=hand.body, hint="The body that is pushed and pulled."
            )

        @push.on_click
        def _(event: Any) -> None:
            vector = force.value * np.array(_DIRECTIONS[push.value])
            loop.do(lambda session: session.push(vector, duration.value))

        self._when(body, lambda value: loop.do(lambda session: session.hand.choose(value)))

    def _add_factors(self) -> None:
        loop, live = self._loop, self._session.live
        with self._gui.add_folder("Change the physics"):
            sliders = {
                name: self._slider(
                    f"{name} (x)", factor.low, factor.high, 0.05, live.values[name], _FACTOR_HINTS[name]
                )
                for name, factor in live.factors.items()
            }
            usual = self._gui.add_button("As usual", hint="Gravity, mass and friction as they were.")
        for name, slider in sliders.items():
            self._when(slider, lambda value, name=name: loop.do(lambda session: session.turn_factor(name, value)))

        @usual.on_click
        def _(event: Any) -> None:
            for name, slider in sliders.items():
                slider.value = live.factors[name].default
                loop.do(lambda session, name=name: session.turn_factor(name, session.live.factors[name].default))

    def _add_view(self) -> None:
        loop, scene, session = self._loop, self._scene, self._session
        with self._gui.add_folder("Show"):
            trails = self._gui.add_checkbox(
                "paths",
                True,
                hint="The paths of a point of the robot in the futures of the elites: the better and the sooner, the "
                "stronger. Orange: the plan's own steps; blue: what the policy prior would do after them.",
            )
            elites = self._slider("elites", 1, 32, 1, loop.num_elites, "Of how many elites the paths are shown.")
            ghosts = self._slider(
                "ghosts", 0, 6, 1, scene.futures.num_ghosts, "How many imagined poses of the best elite are shown."
            )
            steps = self._slider(
                "steps ahead", 1, 60, 1, session.subject.config["steps_shown"],
                "How far a learned model's futures are shown. The oracle's are as long as its plan.",
                disabled=session.ordinary.reader is None or session.subject.is_oracle,
            )  # fmt: skip
            point = self._gui.add_dropdown(
                "path of",
                [_FARTHEST, *session.hand.bodies],
                initial_value=session.subject.config["trail"] or _FARTHEST,
                hint="The point whose paths are drawn: a body, or what is farthest from the robot's root.",
            )
            follows = self._gui.add_checkbox(
                "follow the robot", scene.follows, hint="The view goes along with a robot that travels."
            )
            self._record = self._gui.add_button(
                "Record mp4",
                hint=f"Record the robot into {session.subject.config['output']}, as it is drawn by MuJoCo, step by step; "
                "decisions take longer meanwhile.",
            )
        self._when(trails, lambda value: setattr(scene.futures, "shows_trails", value))
        self._when(elites, lambda value: setattr(loop, "num_elites", int(value)))
        self._when(ghosts, lambda value: setattr(scene.futures, "num_ghosts", int(value)))
        self._when(steps, lambda value: loop.do(lambda session: session.show_steps(int(value))))
        self._when(
            point, lambda value: loop.do(lambda session: session.follow(None if value == _FARTHEST else value))
        )
        self._when(follows, lambda value: setattr(scene, "follows", value))

        @self._record.on_click
        def _(event: Any) -> None:
            loop.record()

    def _slider(
        self,
        label: str,
        low: int | float,
        high: int | float,
        step: int | float,
        value: int | float,
        hint: str,
        *,
        disabled: bool = False,
    ) -> Any:
        return self._gui.add_slider(
            label, min=low, max=high, step=step, initial_value=value, hint=hint, disabled=disabled
        )

    def _when(self, handle: Any, act: Callable[[Any], object]) -> None:
        """Do this when a person changes it; not where the page itself does."""

        @handle.on_update
        def _(event: Any) -> None:
            if event.client is not None:
                act(handle.value)


_FARTHEST = "the farthest"


def _round(value: int | float) -> float:
    """To two digits."""
    return float(f"{value:.2g}")
