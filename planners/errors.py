"""The one error type of this package."""


class PlannerError(ValueError):
    """A planner was built or asked with something it cannot work with."""
