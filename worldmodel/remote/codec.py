"""Messages as bytes: MessagePack with arrays, in the encoding of openpi's websocket protocol.

An array is a map with *bytes* for keys, {b"__ndarray__": True, b"data": in C order, b"dtype": "<f4",
b"shape": [...]}; a NumPy scalar is {b"__npgeneric__": True, b"data": number, b"dtype": "<f4"}. (The package
msgpack-numpy has other keys, and falls back to unpickling; here nothing is executed, whatever the bytes are.)
"""

import math
import re
from typing import Any

import msgpack
import numpy as np

from worldmodel.errors import MessageError

# A message is a flat map of arrays, words and numbers: whoever needs more is no robot.
MAX_ENTRIES = 256  # of a map or a list
MAX_CONTAINERS = 1024  # maps and lists of one message: each array is two
MAX_DIMS = 8
_DTYPE = re.compile(r"\|b1|\|[iu]1|[<>=]?(?:[iu][1248]|f[248])")


def pack(message: Any) -> bytes:
    """A message as bytes. Errors: `MessageError` for what has no encoding, such as arrays of objects."""
    try:
        packed: bytes = msgpack.packb(message, default=_encoded)
    except (TypeError, ValueError, OverflowError) as error:
        raise MessageError(f"cannot be sent: {error}") from error
    return packed


def unpack(frame: bytes) -> Any:
    """The message in bytes from anywhere; its arrays cannot be written to.

    Memory and time are bounded by a small multiple of the frame's length. Errors: `MessageError` for anything
    that `pack` does not make.
    """
    num_containers = 0

    def count(container: Any) -> Any:
        nonlocal num_containers
        num_containers += 1
        if num_containers > MAX_CONTAINERS:
            raise MessageError(f"more than {MAX_CONTAINERS} maps and lists in one message")
        return _decoded(container) if isinstance(container, dict) else container

    try:
        return msgpack.unpackb(
            frame,
            object_hook=count,
            list_hook=count,
            max_map_len=MAX_ENTRIES,
            max_array_len=MAX_ENTRIES,
            max_ext_len=0,
        )
    except MessageError:
        raise
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        raise MessageError(f"no MessagePack that is understood here: {str(error)[:200]}") from error


def _encoded(value: Any) -> dict[bytes, Any]:
    if not isinstance(value, np.ndarray | np.generic):
        raise TypeError(f"a {type(value).__name__} has no encoding: send arrays, numbers and text")
    if value.dtype.kind not in "biuf":
        raise TypeError(f"arrays of {value.dtype} have no encoding: send numbers")
    if isinstance(value, np.generic):
        return {b"__npgeneric__": True, b"data": value.item(), b"dtype": value.dtype.str}
    return {b"__ndarray__": True, b"data": value.tobytes(), b"dtype": value.dtype.str, b"shape": value.shape}


def _decoded(container: dict[Any, Any]) -> Any:
    if b"__ndarray__" in container:
        return _array(_dtype(container), container.get(b"shape"), container.get(b"data"))
    if b"__npgeneric__" in container:
        number = container.get(b"data")
        if not isinstance(number, bool | int | float):
            raise MessageError(f"a scalar holds a {type(number).__name__}: it must be a number")
        dtype = _dtype(container)
        try:
            return dtype.type(number)
        except (ValueError, OverflowError) as error:
            raise MessageError(f"the scalar {number} is none of {dtype}") from error
    return container


def _dtype(container: dict[Any, Any]) -> np.dtype[Any]:
    name = container.get(b"dtype")
    name = name.decode("latin1") if isinstance(name, bytes) else name
    if not isinstance(name, str) or not _DTYPE.fullmatch(name):
        raise MessageError(f"dtype {str(name)[:40]!r}: only numbers are understood, such as '<f4' or '|u1'")
    return np.dtype(name)


def _array(dtype: np.dtype[Any], shape: Any, data: Any) -> np.ndarray:
    if not isinstance(data, bytes):
        raise MessageError(f"an array's data is a {type(data).__name__}: it must be bytes")
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        raise MessageError("an array's shape must be a list of whole numbers")
    if len(shape) > MAX_DIMS:
        raise MessageError(f"an array of {len(shape)} dimensions: at most {MAX_DIMS} are understood")
    if math.prod(shape) * dtype.itemsize != len(data):
        raise MessageError(f"{len(data)} bytes are no array of shape {shape} and dtype {dtype.str}")
    try:
        return np.frombuffer(data, dtype).reshape(shape)
    except ValueError as error:  # no entries, but a size that no machine has
        raise MessageError(f"an array of shape {shape}: {error}") from error
