"""What can go wrong with an environment; each message names the value, the rule and the way out."""


class EnvError(ValueError):
    """Base of all errors of this package."""


class UnknownTaskError(EnvError):
    """No task has this name."""


class UnsupportedEnvError(EnvError):
    """The task exists, but does not fit the interface: continuous bounded actions, a state vector."""


class InvalidActionError(EnvError):
    """An action of a wrong shape, or with entries that are no finite numbers."""


class SimulationError(EnvError):
    """The simulation diverged: a NaN or inf came out, or MuJoCo warned of a bad state."""


class RenderingError(EnvError):
    """No image could be made, mostly because no OpenGL library is installed."""


class IncompatibleVersionsError(EnvError, ImportError):
    """MuJoCo and dm_control are installed in versions that do not run together."""
