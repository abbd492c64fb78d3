"""The errors that a user can mend: each message names the value, the rule and the way out."""


class WorldModelError(ValueError):
    """A mistake that the user can mend; shown as one line at the command line."""


class DatasetError(WorldModelError):
    """An episode, a dataset or a request for windows that breaks a rule of `worldmodel.data`."""


class CheckpointError(WorldModelError):
    """A checkpoint that cannot be written, found or read."""


class ConfigError(WorldModelError):
    """A setting, or a pair of settings, that makes no sense."""


class RunError(WorldModelError):
    """A run that cannot start or go on, such as a run folder that is in use."""


class PeerError(WorldModelError):
    """Another of the processes that train together failed, or is gone."""


class DivergenceError(WorldModelError):
    """Training that led to numbers which are none."""


class MessageError(WorldModelError):
    """A message between a robot and a policy server that breaks a rule of their protocol."""


class RemoteError(WorldModelError):
    """A policy server that cannot be reached, does not answer, or refuses."""


def one_line(error: BaseException) -> str:
    """An error's message without its line breaks; its kind, where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__
