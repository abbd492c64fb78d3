"""The page: a viser server that shows a loop's session, and hears what people do."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import viser

from worldmodel.apps.cockpit.choices import ORACLE, chosen, model_of, models, oracle_tasks
from worldmodel.apps.cockpit.loop import MISTAKES, Frame, Loop
from worldmodel.apps.cockpit.panel import Panel
from worldmodel.apps.cockpit.plots import WIDTH_PX, Plots
from worldmodel.apps.cockpit.scene import RobotScene
from worldmodel.apps.cockpit.session import Session
from worldmodel.apps.cockpit.viewpoint import FOV_RAD, Viewpoint

_PLOTS_EVERY_S, _STATUS_EVERY_S = 0.25, 0.4
_MEASURED_S = 3.0  # of updates, for their rate
_PANEL_WIDTH_PX = 340


class Page:
    """Shows the latest frame of a loop whenever it is asked to, and counts how often.

    - `config`: of the first session, from which others are made.
    """

    def __init__(self, server: viser.ViserServer, loop: Loop, config: Mapping[str, Any]) -> None:
        self._server, self._loop, self._config = server, loop, dict(config)
        self._models: list[str] = []
        self._session: Session | None = None
        self._scene: RobotScene | None = None
        self._updates: deque[float] = deque()
        self._plots_at_s = self._status_at_s = 0.0
        self._episode = 0
        server.gui.configure_theme(control_width="large", show_share_button=False, show_logo=False)
        server.gui.set_panel_label("worldmodel")
        server.scene.set_up_direction("+z")
        server.on_client_connect(self._greet)

    @property
    def updates_per_s(self) -> float:
        """Of the last seconds."""
        if len(self._updates) < 2:
            return 0.0
        return (len(self._updates) - 1) / max(self._updates[-1] - self._updates[0], 1e-6)

    def update(self) -> None:
        """Show the latest frame."""
        frame, now_s = self._loop.frame, time.monotonic()
        if frame is None:
            return
        if frame.session is not self._session:
            self._build(frame.session)
        assert self._scene is not None
        if frame.moment.episode != self._episode:
            self._episode = frame.moment.episode
            self._scene.look_again()
        self._scene.show(frame, now_s)
        self._server.flush()
        self._updates.append(time.monotonic())
        while self._updates[-1] - self._updates[0] > _MEASURED_S:
            self._updates.popleft()
        if now_s - self._plots_at_s > _PLOTS_EVERY_S:
            self._plots_at_s = now_s
            self._plots.show(self._loop.history)
        if now_s - self._status_at_s > _STATUS_EVERY_S:
            self._status_at_s = now_s
            self._panel.status.content = self._status(frame)
            self._panel.refresh()

    def tell(self, title: str, text: str, is_mistake: bool) -> None:
        """A notification on every page."""
        for client in self._server.get_clients().values():
            client.add_notification(
                title, text, auto_close_seconds=8.0, color="red" if is_mistake else "teal"
            )

    def _build(self, session: Session) -> None:
        """Scene, plots and controls of another session."""
        server, loop = self._server, self._loop
        if self._scene is not None:
            self._scene.close()
            server.gui.reset()
        self._session, self._config = session, dict(session.subject.config)
        self._scene = RobotScene(
            server,
            session,
            pull=lambda place: loop.do(
                lambda session: session.hand.release() if place is None else session.hand.pull(place)
            ),
            drag_goal=lambda place: (
                None if place is None else loop.do(lambda session: session.drag_goal(place))
            ),
        )
        is_learned = not session.subject.is_oracle
        found = models(Path(self._config["runs"]))
        # What was shown first can be gone back to, wherever it lies.
        self._models = list(dict.fromkeys([*found, *self._models, model_of(self._config)]))
        panel = server.gui.add_panel()
        with panel.add_tab("What happens"):
            self._plots = Plots(
                server, is_learned=is_learned, is_surprised=session.ordinary.surprise is not None
            )
        panel.dock_left()
        panel.set_width(WIDTH_PX)
        self._panel = Panel(
            server,
            loop,
            session,
            self._scene,
            model=model_of(self._config),
            models=self._models,
            tasks=oracle_tasks(),
            choose=self._choose,
        )
        server.gui.main_panel.dock_right()
        server.gui.main_panel.set_width(_PANEL_WIDTH_PX)
        view = self._scene.viewpoint
        camera = server.initial_camera
        camera.position, camera.look_at, camera.fov = view.position, view.look_at, FOV_RAD
        for client in server.get_clients().values():
            _look(client, view)

    def _greet(self, client: viser.ClientHandle) -> None:
        client.camera.fov = FOV_RAD

    def _choose(self, model: str, task: str) -> None:
        """Open another session. What was not offered is not opened: a page may send anything."""
        if model not in self._models or (model == ORACLE and task not in oracle_tasks()):
            self.tell("That does not work", f"{model} {task} is not among what can be chosen", True)
            return
        try:
            config = chosen(self._config, model, task)
        except MISTAKES as error:
            self.tell("That does not work", str(error), True)
            return
        self.tell("Opening", f"{model}: a few episodes are played first, to learn what is ordinary.", False)
        self._loop.open(config, lambda done, total: None)

    def _status(self, frame: Frame) -> str:
        session, moment = frame.session, frame.moment
        period_s = session.period_s
        clock = f"{moment.time_s:.2f} s" if moment.time_s is not None else "no clock"
        pace = ""
        if period_s is not None and self._loop.is_playing and frame.lasts_s > 0:
            pace = f", {period_s / frame.lasts_s:.2f} x real time"
        episodes = ", ".join(f"{value:.0f}" for value in session.returns[-4:]) or "none yet"
        level = "" if moment.level is None else f"\n\nsurprise **{moment.level:.2f}** of its threshold"
        late = ""
        if period_s is not None and moment.decision_s > period_s:
            late = " (late)"
        return (
            f"**{session.task}** by {session.subject.acting}, {model_of(session.subject.config)}\n\n"
            f"step {moment.step}, {clock}{pace}\n\n"
            f"return **{moment.episode_return:.1f}** (episodes before: {episodes})\n\n"
            f"decision {moment.decision_s * 1e3:.1f} ms{late}{level}\n\n"
            f"page: {self.updates_per_s:.0f} updates/s"
        )


def _look(client: viser.ClientHandle, view: Viewpoint) -> None:
    """Move a client's camera there."""
    with client.atomic():
        client.camera.position = np.asarray(view.position)
        client.camera.look_at = np.asarray(view.look_at)
        client.camera.fov = FOV_RAD
