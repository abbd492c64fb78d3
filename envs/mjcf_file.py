"""A task's MJCF file, looked through before MuJoCo reads it: one file, of a bounded size.

MuJoCo opens whatever other file a model names, and takes whatever memory and time it asks for. A task of ours
is whole in one file, so what leads elsewhere is refused, and so are numbers that no robot needs.
"""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from envs.errors import EnvError, one_line

if TYPE_CHECKING:
    import mujoco

_MAX_BYTES = 2**24
_MAX_ELEMENTS = 10_000  # copies included
_MAX_COUNT = 100_000  # of all that <size> makes room for
_MAX_PLACES = 4_000_000  # of one height field or texture
_MAX_MEMORY_BYTES = 2**30
_FOREIGN_ELEMENTS = {"include", "plugin", "extension", "model"}  # other files, code of other libraries
_FOREIGN_ATTRIBUTES = re.compile(r"file.*|.*dir|content_type")
_COPYING_ELEMENTS = {"replicate", "composite", "flexcomp"}
_COUNTS = {"nrow", "ncol", "width", "height", "gridsize", "nsample"}
_NUMBER = re.compile(r"[+-]?(\d{1,30}(\.\d*)?|\.\d+)(e[+-]?\d{1,2})?", re.IGNORECASE)
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40, "P": 2**50, "E": 2**60}


def load_spec(path: Path) -> mujoco.MjSpec:
    """The model of an MJCF file. Errors: `EnvError` that names the file, for what is damaged or refused."""
    import mujoco

    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
        _check(content)
        return mujoco.MjSpec.from_string(content.decode())
    except EnvError as error:
        raise EnvError(f"cannot use {path}: {error}") from error
    except (OSError, ValueError, RuntimeError, ElementTree.ParseError) as error:
        raise EnvError(f"cannot read {path}: {one_line(error)}") from error


def compiled(spec: mujoco.MjSpec, path: Path) -> mujoco.MjModel:
    """The model that a spec describes. Errors: `EnvError` that names the file it came from."""
    try:
        return spec.compile()
    except (ValueError, RuntimeError, MemoryError) as error:
        raise EnvError(f"cannot use {path}: {one_line(error)}") from error


def _check(content: bytes) -> None:
    if len(content) > _MAX_BYTES:
        raise EnvError(f"it has more than {_MAX_BYTES} bytes")
    if b"<!DOCTYPE" in content or b"<!ENTITY" in content:
        raise EnvError("it declares entities, which a model does not need: write them out")
    num_elements = 0.0
    for element, copies in _elements(ElementTree.fromstring(content)):
        num_elements += copies
        if num_elements > _MAX_ELEMENTS:
            raise EnvError(f"it has more than {_MAX_ELEMENTS} elements, copies included")
        _check_element(element)


def _elements(root: ElementTree.Element) -> Iterator[tuple[ElementTree.Element, float]]:
    """Every element, each with how many of it there will be."""
    waiting = [(root, 1.0)]
    while waiting:
        element, copies = waiting.pop()
        if element.tag in _COPYING_ELEMENTS:
            copies *= math.prod(max(1.0, abs(number)) for number in _numbers(element.get("count", "1")))
        yield element, copies
        waiting += [(child, copies) for child in element]


def _check_element(element: ElementTree.Element) -> None:
    if element.tag in _FOREIGN_ELEMENTS:
        raise EnvError(f"<{element.tag}> leads to other files or libraries: write its content in its place")
    room = 1.0
    for key, value in element.attrib.items():
        told = f"{key}={value[:80]!r} of <{element.tag}>"
        if _FOREIGN_ATTRIBUTES.fullmatch(key):
            raise EnvError(f"{told} leads to another file: a task's model is one file")
        if key == "memory":
            found = re.fullmatch(r"\s*(-?\d{1,20})([KMGTPE]?)\s*", value)
            if found is None or int(found[1]) * _UNITS[found[2]] > _MAX_MEMORY_BYTES:
                raise EnvError(f"{told} must be at most 1G")
        elif element.tag == "size" or key in _COUNTS:
            room *= math.prod(max(1.0, abs(number)) for number in _numbers(value))
            if room > (_MAX_COUNT if element.tag == "size" else _MAX_PLACES):
                raise EnvError(f"{told} asks for more than any task needs")


def _numbers(text: str) -> list[float]:
    """The numbers of an attribute; infinity for what is none."""
    return [float(word) if _NUMBER.fullmatch(word) else math.inf for word in text.split()]
