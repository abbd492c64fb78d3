"""Trained models that come with the package: `checkpoint=pretrained/NAME`."""

from pathlib import Path

from worldmodel.apps.config import closest
from worldmodel.errors import CheckpointError

PRETRAINED = Path(__file__).parents[1] / "pretrained"
_PREFIX = "pretrained/"


def pretrained_names() -> list[str]:
    """The names of the models, in order."""
    return sorted(path.parent.name for path in PRETRAINED.glob("*/state.json"))


def is_packaged(path: Path) -> bool:
    """Whether a folder is a model of the package."""
    return path.resolve().parent == PRETRAINED.resolve()


def resolve(path: str | Path) -> Path:
    """Where a checkpoint is: `pretrained/NAME` lies in the package, if there is no such folder here.

    Errors: `CheckpointError` that lists the names for one that is unknown.
    """
    text = Path(path).as_posix()
    if not text.startswith(_PREFIX) or Path(path).exists():
        return Path(path)
    name, known = text.removeprefix(_PREFIX), pretrained_names()
    if name not in known:
        raise CheckpointError(
            f"there is no pretrained model {name!r}{closest(name, known)}. Known: {', '.join(known)}"
        )
    return PRETRAINED / name
