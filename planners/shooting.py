"""A scorer from a model that is given step by step."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from planners.constraints import check_weight, lowered
from planners.errors import PlannerError
from planners.scorer import Scorer

Step = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def shooting(
    step: Step,
    state: Float[Tensor, "batch state"],
    *,
    discount: float = 1.0,
    terminal_value: Callable[[Tensor], Tensor] | None = None,
    violation: Callable[[Tensor, Tensor], Tensor] | None = None,
    weight: float = 1.0,
) -> Scorer:
    """Play every candidate from its row's `state`, one batched step after the other.

    The functions take states (M, S) and actions (M, A), M = batch * candidates, one row for each sequence:

    - `step(states, actions)` returns the next states (M, S) and the rewards (M,).
    - `terminal_value(states)`: (M,), what the last state is worth; discounted as the rewards are.
    - `violation(states, actions)`: (M,), at least 0: how much a step breaks a constraint; `weight` times that
      is taken off its reward (a weight of infinity: the candidate never wins). It sees the state before the
      action; the terminal value sees the last.
    """
    check_weight(weight)

    def score(
        candidates: Float[Tensor, "batch candidate horizon action"],
    ) -> Float[Tensor, "batch candidate"]:
        batch_size, num_candidates, horizon, action_dim = candidates.shape
        if state.shape[0] != batch_size:
            raise PlannerError(
                f"there are {state.shape[0]} states, and candidates for {batch_size}; give one state for "
                "each row of the plan."
            )
        # One contiguous (M, A) matrix per step: strided rows would be gathered anew in every product.
        steps = candidates.reshape(-1, horizon, action_dim).transpose(0, 1).contiguous()
        states = state.repeat_interleave(num_candidates, dim=0)
        returns, factor = states.new_zeros(len(states)), 1.0
        for actions in steps.unbind(0):
            before = states
            states, rewards = step(states, actions)
            _check("step", "rewards", rewards, len(actions))
            if violation is not None:
                broken = violation(before, actions)
                _check("violation", "numbers", broken, len(actions))
                rewards = lowered(rewards, broken, weight)
            returns = returns + rewards if factor == 1.0 else torch.add(returns, rewards, alpha=factor)
            factor *= discount
        if terminal_value is not None:
            values = terminal_value(states)
            _check("terminal_value", "values", values, len(states))
            returns = returns + factor * values
        return returns.view(batch_size, num_candidates)

    return score


def _check(function: str, what: str, numbers: Tensor, count: int) -> None:
    """(M, 1) added to (M,) would become (M, M) without a word."""
    if numbers.shape != (count,):
        raise PlannerError(
            f"{function} returned {what} of shape {tuple(numbers.shape)} for {count} actions; it must return "
            f"one number for each, ({count},)."
        )
