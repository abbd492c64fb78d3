"""One moment of a session: all that can be seen of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from planners import Plan
from worldmodel.analysis.surprise import Signals
from worldmodel.apps.cockpit.errors import Errors
from worldmodel.apps.cockpit.kinematics import Bodies


@dataclass(frozen=True, kw_only=True)
class GoalMark:
    """Where a goal is, (3,), if it is a place; the robot's bodies where it is reached, if that is known."""

    place: np.ndarray | None
    pose: Bodies | None


@dataclass(frozen=True, kw_only=True)
class Moment:
    """One moment of a session, and the decision made there.

    Attributes:
        episode: how many came before in this session.
        step: of the episode, from 0; `time_s` of the robot, None where nobody knows its control period.
        bodies: where the robot is.
        reward, episode_return: of the step that led here, and so far.
        plan: made here; its elites' futures are asked for by `Session.foresee`.
        decision_s: seconds that it took.
        signals, level: of surprise about the step that led here; the level is a multiple of its threshold.
        errors: what was imagined of this moment before, against what is seen.
        force: what a hand did in the step that led here (3,), in N.
        goal: where the goal is, the same object until it moves; None without one.
        is_over: whether the episode ends here; the next step starts another.
    """

    episode: int
    step: int
    time_s: float | None
    bodies: Bodies
    reward: float
    episode_return: float
    plan: Plan
    decision_s: float
    signals: Signals
    level: float | None
    errors: Errors
    force: np.ndarray
    goal: GoalMark | None
    is_over: bool
