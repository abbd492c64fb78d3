"""The loop that runs a session in a thread of its own: on the robot's clock, or as fast as the planner is."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import envs
from planners import PlannerError
from worldmodel.apps.cockpit.futures import Futures
from worldmodel.apps.cockpit.history import History
from worldmodel.apps.cockpit.moment import Moment
from worldmodel.apps.cockpit.recording import Recording
from worldmodel.apps.cockpit.session import Session
from worldmodel.errors import WorldModelError

MISTAKES = (WorldModelError, envs.EnvError, PlannerError, FloatingPointError)
_IDLE_S = 0.02  # between two looks for commands, while paused
_FUTURES_EVERY_S = 0.07  # of wall time, at most: to imagine more than is shown would slow the robot down

Command = Callable[[Session], object]


@dataclass(frozen=True, kw_only=True)
class Frame:
    """What a page shows: two moments to move between, and what is imagined.

    Attributes:
        session: whose it is.
        before, moment: the last two moments, the same after a reset.
        futures: imagined at `moment`, or at a moment shortly before it.
        at_s: when `moment` came (`time.monotonic()`), `lasts_s` how long until the next one is expected.
    """

    session: Session
    before: Moment
    moment: Moment
    futures: Futures
    at_s: float
    lasts_s: float

    def share(self, now_s: float) -> float:
        """How far the way from `before` to `moment` is gone, from 0 to 1."""
        return min(1.0, max(0.0, (now_s - self.at_s) / max(self.lasts_s, 1e-3)))


class Loop:
    """Steps a session while it plays; commands are done between two steps, by the loop's own thread.

    `tell` hears of mistakes and news: a title, a text, and whether it is a mistake.

    Attributes:
        is_playing, speed: whether it steps by itself, and how many times the robot's own pace.
        num_elites: whose futures are imagined.
        frame: the latest; None until the first session is open.
        history: of the session; `num_steps` of all sessions.
    """

    def __init__(
        self,
        tell: Callable[[str, str, bool], None],
        *,
        speed: float = 1.0,
        is_playing: bool = True,
        num_elites: int = 8,
        output: Path = Path("runs/view"),
    ) -> None:
        self._tell, self._output = tell, output
        self.speed, self.is_playing, self.num_elites = speed, is_playing, num_elites
        self.frame: Frame | None = None
        self.history, self.num_steps = History(), 0
        self.failure: BaseException | None = None
        self._commands: queue.Queue[Callable[[], object]] = queue.Queue()
        self._session: Session | None = None
        self._recording: Recording | None = None
        self._stopped = threading.Event()
        self._imagined_at_s = 0.0
        self._thread = threading.Thread(target=self._run, name="cockpit", daemon=True)

    def start(self, config: Mapping[str, Any], report: Callable[[int, int], None]) -> None:
        """Open the first session and begin. Errors: those of `Session`, raised here."""
        opened = threading.Event()

        def first() -> None:
            try:
                self._take(Session(config, report))
            except BaseException as error:
                self.failure = error
                raise
            finally:
                opened.set()

        self._commands.put(first)
        self._thread.start()
        opened.wait()
        if self.failure is not None:
            raise self.failure

    def open(self, config: Mapping[str, Any], report: Callable[[int, int], None]) -> None:
        """Open another session in the place of this one; a mistake leaves this one."""
        self._commands.put(lambda: self._take(Session(config, report)))

    def do(self, command: Command) -> None:
        """Do something to the session, as soon as its step is done; what it makes of the moment is shown."""

        def act() -> None:
            session = self._session
            if session is None:
                return
            before = session.moment
            command(session)
            if session.moment is not before:
                self._show(session, before if session.moment.step == before.step else session.moment)

        self._commands.put(act)

    def step(self) -> None:
        """One step, then pause."""
        self.is_playing = False
        self._commands.put(self._step)

    def record(self) -> None:
        """Begin a video, or finish the one that is running."""

        def turn() -> None:
            if self._recording is not None:
                self._finish()
            elif self._session is not None:
                self._recording = Recording(self._output, self._session)
                self._tell("Recording", f"into {self._recording.path}", False)

        self._commands.put(turn)

    @property
    def is_recording(self) -> bool:
        """Whether a video is being written."""
        return self._recording is not None

    def wait(self) -> None:
        """Until all commands given so far are done."""
        done = threading.Event()
        self._commands.put(done.set)
        while not done.wait(0.1):
            if not self._thread.is_alive():
                raise RuntimeError("the cockpit's loop has ended")

    def close(self) -> None:
        """End it, and what it records."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        due_s = time.monotonic()
        try:
            while not self._stopped.is_set():
                self._do_commands(0.0 if self.is_playing else _IDLE_S)
                if self._session is None:
                    return
                if not self.is_playing:
                    due_s = time.monotonic()
                    continue
                wait_s = due_s - time.monotonic()
                if wait_s > 0:
                    self._do_commands(min(wait_s, _IDLE_S))
                    continue
                self._guard(self._step)
                due_s = max(due_s + self._pace_s(), time.monotonic())
        except BaseException as error:  # told where it is asked for
            self.failure = error
        finally:
            self._guard(self._finish)
            if self._session is not None:
                self._session.close()

    def _pace_s(self) -> float:
        """Wall seconds of a step."""
        period_s = None if self._session is None else self._session.period_s
        return 0.0 if period_s is None else period_s / max(self.speed, 1e-3)

    def _do_commands(self, wait_s: float) -> None:
        """All that are there; the first may take so long to come."""
        try:
            while True:
                self._guard(self._commands.get(timeout=wait_s) if wait_s else self._commands.get_nowait())
                wait_s = 0.0
        except queue.Empty:
            return

    def _guard(self, act: Callable[[], object]) -> None:
        """What goes wrong is told, and all goes on."""
        try:
            act()
        except envs.SimulationError as error:
            self._tell("The simulation diverged", f"{error}. A new episode begins.", True)
            if self._session is not None:
                self._session.reset()
        except MISTAKES as error:
            self._tell("That does not work", str(error), True)

    def _step(self) -> None:
        session = self._session
        if session is None:
            return
        before = session.moment
        moment = session.step()
        self.num_steps += 1
        self.history.add(moment, session.period_s)
        if self._recording is not None:
            try:
                self._recording.add(moment)
            except MISTAKES:
                self._recording = None
                raise
        self._show(session, before if moment.step else moment)

    def _show(self, session: Session, before: Moment) -> None:
        now_s, moment = time.monotonic(), session.moment
        frame = self.frame
        is_fresh = frame is None or frame.session is not session
        if (
            is_fresh
            or not self.is_playing
            or now_s - self._imagined_at_s > _FUTURES_EVERY_S
            or moment.step == 0
        ):
            futures = session.foresee(self.num_elites)
            self._imagined_at_s = time.monotonic()
        else:
            assert frame is not None
            futures = frame.futures
        took_s = 0.0 if frame is None else now_s - frame.at_s
        lasts_s = max(self._pace_s(), min(took_s, 1.0)) if self.is_playing else 0.0
        self.frame = Frame(
            session=session,
            before=before,
            moment=moment,
            futures=futures,
            at_s=time.monotonic(),
            lasts_s=lasts_s,
        )

    def _take(self, session: Session) -> None:
        self._guard(self._finish)
        if self._session is not None:
            self._session.close()
        self._session, self.history = session, History()
        self.history.add(session.moment, session.period_s)
        self._show(session, session.moment)

    def _finish(self) -> None:
        recording, self._recording = self._recording, None
        if recording is not None:
            self._tell("Recorded", str(recording.stop()), False)
