"""Robots that come and go, and share decisions: what is kept of each, and who decides for some of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from planners import Plan
from worldmodel.apps.agent import PlanningAgent
from worldmodel.apps.foresight import ImaginingForesight
from worldmodel.apps.memory import Observation, Past


@dataclass
class Session:
    """What is kept of one robot from one decision to the next.

    - `plan`, `past` (one row each): None before its first decision.
    - `goal`: what it would observe at its goal {key: (...)}; None for models that learned from rewards.
    """

    plan: Plan | None = None
    past: Past | None = None
    goal: Observation | None = None

    def reset(self) -> None:
        """A new episode: forget plan and past; the goal stays until there is another one."""
        self.plan = self.past = None


class SessionGoals:
    """The goals of the sessions that are decided for at the moment, as `GoalForesight` asks for them."""

    def __init__(self) -> None:
        self.sessions: Sequence[Session] = ()

    def __call__(self) -> Observation:
        """Theirs {key: (B, ...)}."""
        goals = [session.goal for session in self.sessions if session.goal is not None]
        return {key: np.stack([goal[key] for goal in goals]) for key in goals[0]}


class SessionAgent:
    """Plans for any of the robots that it knows, together: each goes on from its own plan and its own past.

    What a robot is told is what a `PlanningAgent` of its own would tell it, with other noise: noise is drawn
    for all that share a decision, in the order in which they stand there.

    - `agent`, `foresight`: who plans, and where its futures come from; nobody else may use them.
    - `goals`: those that a `GoalForesight` asks for.
    - `is_padded`: decide for 1, 2, 4, 8, ... robots, some of which nobody asked for: compiled functions are
      compiled anew for each number.
    """

    def __init__(
        self,
        agent: PlanningAgent,
        foresight: ImaginingForesight,
        *,
        goals: SessionGoals | None = None,
        is_padded: bool = False,
    ) -> None:
        self._agent, self._foresight = agent, foresight
        self._goals = goals or SessionGoals()
        self._is_padded = is_padded

    def act(
        self, sessions: Sequence[Session], observation: Observation, deadline: float | None = None
    ) -> np.ndarray:
        """Plans (B, H, A) for B different sessions that observe {key: (B, ...)}.

        The sessions go on by one step, in which the first action is done. `deadline` as in
        `SamplingPlanner.plan`. What is raised leaves them as they were.
        """
        num_asked = len(sessions)
        if self._is_padded:
            size = 1 << (num_asked - 1).bit_length()
            sessions = [*sessions, *(Session(goal=sessions[0].goal) for _ in range(size - num_asked))]
            observation = {key: _padded(values, size) for key, values in observation.items()}
        self._resume(sessions)
        self._agent.act(observation, deadline)
        plan, past = self._agent.plan, self._foresight.memory.past
        assert plan is not None
        assert past is not None
        for row, session in enumerate(sessions[:num_asked]):
            session.plan, session.past = plan.rows(row, row + 1), past.rows(row, row + 1)
        return plan.actions[:num_asked].clamp(-1, 1).cpu().numpy()

    def _resume(self, sessions: Sequence[Session]) -> None:
        """Let the agent be where these are."""
        self._goals.sessions = sessions
        self._foresight.reset()
        self._agent.reset()
        known = [(each.plan, each.past) for each in sessions if each.plan and each.past]
        if not known:
            return
        # Rows of the new ones may hold anything: the agent begins there anew.
        rows = [(each.plan or known[0][0], each.past or known[0][1]) for each in sessions]
        is_new = np.array([each.plan is None for each in sessions])
        self._agent.resume(Plan.stack([plan for plan, _ in rows]), is_new)
        self._foresight.memory.resume(Past.stack([past for _, past in rows]), is_new)


def _padded(values: np.ndarray, size: int) -> np.ndarray:
    """The first row once more for those that nobody asked for."""
    return np.concatenate([values, np.repeat(values[:1], size - len(values), axis=0)])
