"""The controls of the page, each with a tooltip that says what it does."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from worldmodel.apps.cockpit.choices import ORACLE
from worldmodel.apps.cockpit.controls import Controls
from worldmodel.apps.cockpit.disturbing import GoalControls, add_factors, add_hand
from worldmodel.apps.cockpit.knobs import KNOBS, planner_names
from worldmodel.apps.cockpit.loop import Command, Loop
from worldmodel.apps.cockpit.scene import RobotScene
from worldmodel.apps.cockpit.session import Session

if TYPE_CHECKING:
    import viser

_FARTHEST = "the farthest"


class Panel:
    """Controls of one session, in the GUI container that is open when it is made.

    - `choose`: called with a model and a task that were chosen.

    Attributes:
        status: text above all.
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
        self._loop, self._session, self._scene = loop, session, scene
        self._controls = Controls(server, loop)
        self._gui = server.gui
        self.status = self._gui.add_markdown("")
        self._add_run()
        self._add_planner(model, models, tasks, choose)
        self._goal = None if session.goal is None else GoalControls(self._controls, session)
        add_hand(self._controls, session)
        add_factors(self._controls, session)
        self._add_view()
        self._gui.add_markdown(f"<small>{session.ordinary.told}</small>")

    def refresh(self) -> None:
        """What changes by itself: the goal's numbers, and whether a video is being recorded."""
        self._record.label = "Stop recording" if self._loop.is_recording else "Record mp4"
        if self._goal is not None:
            self._goal.refresh(self._session)

    def _add_run(self) -> None:
        loop = self._loop
        with self._gui.add_folder("Run"):
            run = self._gui.add_button_group(
                "run",
                ("Play", "Pause", "Step", "Reset"),
                hint="Play: decide and act on the robot's clock. Pause: hold still. Step: one decision. "
                "Reset: start the next episode.",
            )
            speed = self._controls.slider(
                "speed",
                (0.05, 3.0),
                loop.speed,
                "Times the robot's own pace; where the planner takes longer than that, it is slower.",
                step=0.05,
            )

        @run.on_click
        def _(event: Any) -> None:
            if run.value in ("Play", "Pause"):
                loop.is_playing = run.value == "Play"
            elif run.value == "Step":
                loop.step()
            else:
                loop.do(lambda session: session.reset())

        self._controls.when(speed, lambda value: setattr(loop, "speed", value))

    def _add_planner(
        self, model: str, models: list[str], tasks: list[str], choose: Callable[[str, str], None]
    ) -> None:
        session, controls = self._session, self._controls
        config = session.planner_config
        with self._gui.add_folder("Who plans"):
            of_model = self._gui.add_dropdown(
                "model",
                models,
                initial_value=model,
                hint="A trained model, which imagines in its latent space, or the simulator itself.",
            )
            of_task = self._gui.add_dropdown(
                "task",
                _with(session.task, tasks),
                initial_value=session.task,
                disabled=model != ORACLE,
                hint="What is to be done. A trained model has its own; with the oracle, choose any of these.",
            )
            name = str(config["name"])
            of_planner = self._gui.add_dropdown(
                "planner",
                _with(name, planner_names()),
                initial_value=name,
                hint="The algorithm that draws action sequences, scores them and draws better ones.",
            )
            knobs = {
                key: controls.slider(
                    knob.label,
                    (knob.low, max(knob.high, config.get(key, 0))),
                    config.get(key, knob.low),
                    knob.hint,
                    step=knob.step,
                    disabled=key not in config,
                )
                for key, knob in KNOBS.items()
            }
        for key, slider in knobs.items():
            controls.when_do(slider, partial(_turning, key))

        def another_planner(chosen: str) -> Command:
            def take(session: Session) -> None:
                session.choose_planner(chosen)
                for key, slider in knobs.items():
                    slider.disabled = key not in session.planner_config
                    if not slider.disabled:
                        slider.value = session.planner_config[key]

            return take

        controls.when_do(of_planner, another_planner)
        controls.when(of_model, lambda value: choose(value, of_task.value))
        controls.when(of_task, lambda value: choose(of_model.value, value))

    def _add_view(self) -> None:
        loop, scene, session, controls = self._loop, self._scene, self._session, self._controls
        config = session.subject.config
        with self._gui.add_folder("Show"):
            trails = self._gui.add_checkbox(
                "paths",
                scene.futures.shows_trails,
                hint="The paths of a point of the robot in the futures of the elites: the better and the "
                "sooner, the stronger. Orange: the plan itself; blue: what the policy prior would do then.",
            )
            elites = controls.slider(
                "elites", (1, 32), loop.num_elites, "Of how many elites the paths are shown.", step=1
            )
            ghosts = controls.slider(
                "ghosts",
                (0, 6),
                scene.futures.num_ghosts,
                "How many imagined poses of the best elite are shown.",
                step=1,
            )
            steps = controls.slider(
                "steps ahead",
                (1, 60),
                config["steps_shown"],
                "How far a learned model's futures are shown. The oracle's are as long as its plan.",
                step=1,
                disabled=session.subject.is_oracle,
            )
            point = self._gui.add_dropdown(
                "path of",
                _with(config["trail"] or _FARTHEST, [_FARTHEST, *session.hand.bodies]),
                initial_value=config["trail"] or _FARTHEST,
                hint="The point whose paths are drawn: a body, or what is farthest from the robot's root.",
            )
            follows = self._gui.add_checkbox(
                "follow the robot", scene.follows, hint="The view goes along with a robot that travels."
            )
            self._record = self._gui.add_button(
                "Record mp4",
                hint=f"Record the robot into {config['output']}, as MuJoCo draws it, step by step; decisions "
                "take longer meanwhile.",
            )
        controls.when(trails, lambda value: setattr(scene.futures, "shows_trails", value))
        controls.when(elites, lambda value: setattr(loop, "num_elites", int(value)))
        controls.when(ghosts, lambda value: setattr(scene.futures, "num_ghosts", int(value)))
        controls.when_do(steps, lambda value: lambda session: session.show_steps(int(value)))
        controls.when_do(
            point, lambda value: lambda session: session.follow(None if value == _FARTHEST else value)
        )
        controls.when(follows, lambda value: setattr(scene, "follows", value))

        @self._record.on_click
        def _(event: Any) -> None:
            loop.record()


def _turning(name: str, value: int | float) -> Command:
    return lambda session: session.turn_planner(name, value)


def _with(chosen: str, names: list[str]) -> list[str]:
    """With what is chosen, if it is not among them."""
    return names if chosen in names else [chosen, *names]
