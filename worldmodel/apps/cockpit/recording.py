"""An mp4 of what the robot does, from the moment on at which it is asked for."""

from __future__ import annotations

import itertools
from contextlib import ExitStack
from pathlib import Path

import envs
from worldmodel.apps.cockpit.moment import Moment
from worldmodel.apps.cockpit.session import Session
from worldmodel.apps.video import ControlVideo
from worldmodel.errors import ConfigError, RunError
from worldmodel.files import reason_of


class Recording:
    """Of one session, into a new file of a folder; `stop` finishes it.

    Errors: `ConfigError` where nothing here can draw, `RunError` where the file cannot be written.
    """

    def __init__(self, folder: Path, session: Session) -> None:
        try:
            session.render()
        except envs.RenderingError as error:
            raise ConfigError(f"a video needs pictures: {error}") from error
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"cannot make output={folder}: {reason_of(error)}") from error
        names = (folder / f"{session.task}-{number}.mp4" for number in itertools.count(1))
        self.path = next(path for path in names if not path.exists())
        self._session, self._closing = session, ExitStack()
        title = f"{session.task}   {session.subject.acting}"
        self._video = self._closing.enter_context(ControlVideo(self.path, title, session.period_s))

    def add(self, moment: Moment) -> None:
        """One step. Errors: as the class."""
        frame = self._session.render() if self._video.wants_frame else None
        fault = None if not moment.force.any() else f"pushed {float((moment.force**2).sum()) ** 0.5:.0f} N"
        self._video.add(frame, moment.episode_return, moment.decision_s, moment.level, fault)

    def stop(self) -> Path:
        """Finish the file; returns where it is. Errors: as the class."""
        self._closing.close()
        return self.path
