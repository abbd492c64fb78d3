"""Sound files made wrong: bytes, JSON, headers and XML, as damage and malice make them."""

import copy
import hashlib
import json
import struct
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

# Bytes that decoders stumble over: lengths, types and nesting of MessagePack, quotes and brackets of text.
HEADS = bytes.fromhex("c0c1c4c6c9cacbcfd3d9dbdcdddedf809fff") + b'"\\[]{}()<>&\0'
SECRET = "secret-of-another-folder"  # lies beside what is read, and is never opened
PAYLOAD = "__import__('os').mkdir('PWNED')"  # whoever runs it leaves a trace
TRAVERSAL = (
    f"../{SECRET}",
    f"../../../{SECRET}",
    f"..\\..\\{SECRET}",
    f"/{SECRET}",
    f"~/{SECRET}",
    ".",
    "..",
    "",
)
ODD = (
    *(None, True, False, 0, -1, 1, 3, 2**31, 2**63 - 1, 2**64, 10**30, -(2**70), 0.5, 1e308, float("nan")),
    *(float("inf"), "x" * 300, "ä\u202e\0", PAYLOAD, "module:Task-v0", "1e9", "null", "<f4", "|O", "F32"),
    *([], {}, [[]], [0], [2**62, 4], [-1], [None], ["a"], {"a": {"a": {}}}),
    *({"_target_": "os.system"}, "${oc.env:HOME}"),
    *TRAVERSAL,
)  # fmt: skip

Mutate = Callable[[np.random.Generator, bytes], bytes]


def mutated_bytes(rng: np.random.Generator, content: bytes) -> bytes:
    """Some bytes replaced, dropped, doubled or inserted, or the end cut off."""
    made = bytearray(content)
    for _ in range(rng.integers(1, 5)):
        place, kind = int(rng.integers(len(made) + 1)), rng.integers(6)
        if kind == 0 and place < len(made):
            made[place] = rng.integers(256)
        elif kind == 1 and place < len(made):
            made[place] = HEADS[rng.integers(len(HEADS))]
        elif kind == 2:
            del made[place : place + int(rng.integers(1, 40))]
        elif kind == 3:
            made[place:place] = made[place : place + int(rng.integers(1, 40))]
        elif kind == 4:
            made[place:place] = rng.bytes(int(rng.integers(1, 20)))
        else:
            made = made[:place]
    return bytes(made)


def mutated_value(rng: np.random.Generator, value: Any) -> Any:
    """JSON of which one entry, somewhere, is replaced, changed a little, dropped, doubled or renamed."""
    made = copy.deepcopy(value)
    places = list(_places(made))
    if not places:
        return ODD[rng.integers(len(ODD))]
    holder, key = places[rng.integers(len(places))]
    kind = rng.integers(10)
    if kind < 5:
        holder[key] = copy.deepcopy(ODD[rng.integers(len(ODD))])
    elif kind == 5 and isinstance(holder[key], int | float):
        with np.errstate(all="ignore"):
            holder[key] = holder[key] * int(rng.choice([-1, 2, 1000, 10**6, 10**12])) + int(rng.integers(2))
    elif kind == 6:
        others = places[rng.integers(len(places))]
        holder[key] = copy.deepcopy(others[0][others[1]])
    elif kind == 7 and isinstance(holder, dict):
        holder[str(ODD[rng.integers(len(ODD))])] = holder.pop(key)
    elif kind == 8 and isinstance(holder, list):
        holder.extend(holder[: int(rng.integers(1, 50))] * int(rng.choice([1, 1000])))
    else:
        del holder[key]
    return made


def _places(value: Any) -> Any:
    """Every entry of nested lists and dictionaries: what holds it, and under which key."""
    if isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _places(value[key])


def mutated_json(rng: np.random.Generator, content: bytes) -> bytes:
    """A JSON file that is wrong somewhere, mostly still JSON."""
    kind = rng.integers(12)
    if kind == 0:
        return mutated_bytes(rng, content)
    if kind == 1:
        deep = int(rng.choice([500, 100_000]))
        return b"[" * deep + b"]" * deep if rng.integers(2) else b'{"a":' * deep + b"1" + b"}" * deep
    return json.dumps(mutated_value(rng, json.loads(content))).encode()


def resealed(state: bytes, folder: Path) -> bytes:
    """A checkpoint's state whose digests are right again, as whoever makes a malicious one would do."""
    try:
        content = json.loads(state)
        for name in content.get("files", {}):
            if (folder / name).is_file():
                content["files"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        content.pop("digest", None)
        content["digest"] = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        return json.dumps(content).encode()
    except (ValueError, AttributeError, TypeError, RecursionError, OSError):
        return state


def mutated_safetensors(rng: np.random.Generator, content: bytes) -> bytes:
    """A file of tensors whose header, or numbers, are wrong somewhere."""
    (size,) = struct.unpack("<Q", content[:8])
    header, numbers = content[8 : 8 + size], content[8 + size :]
    kind = rng.integers(6)
    if kind == 0:
        return mutated_bytes(rng, content)
    if kind == 1:
        return struct.pack("<Q", int(rng.choice([0, 1, 2**20, 2**40, 2**62]))) + content[8:]
    if kind == 2 and len(numbers) >= 4:
        made = bytearray(numbers)
        for _ in range(50):
            place = int(rng.integers(len(made) // 4)) * 4
            made[place : place + 4] = np.float32(rng.choice([np.nan, np.inf, -np.inf, 3e38, 0])).tobytes()
        return content[: 8 + size] + bytes(made)
    made_header = json.dumps(mutated_value(rng, json.loads(header))).encode()
    return struct.pack("<Q", len(made_header)) + made_header + numbers


def mutated_npy(rng: np.random.Generator, content: bytes) -> bytes:
    """An array file with a wrong header, wrong bytes, or a pickle in it."""
    kind = rng.integers(5)
    if kind < 2:
        return mutated_bytes(rng, content[:128]) + content[128:]
    if kind == 2:
        return mutated_bytes(rng, content)
    size = int.from_bytes(content[8:10], "little")
    header = content[10 : 10 + size].decode("latin1").strip()
    dtypes = ("|O", ">f4", "<c8", "<U9999999", "|V8", "<M8[s]", "[('a', '<f4')]", PAYLOAD)
    shapes = ("(1,)", "(9999999999999,)", "(-1,)", "()", "(2, 3, 4)", f"({PAYLOAD},)", "(" * 300)
    if kind == 3:
        header = header.replace(header.split("'descr': ")[1].split(",")[0], repr(str(rng.choice(dtypes))))
    else:
        shape = header[header.index("(") : header.index(")") + 1]
        header = header.replace(shape, str(rng.choice(shapes)))
    made = header.encode("latin1").ljust(size)
    tail = content[10 + size :] if rng.integers(2) else PICKLE
    return content[:8] + len(made).to_bytes(2, "little") + made + tail


# What a pickle of an array of objects may hold: protocol 0, a call of os.mkdir.
PICKLE = b"cos\nmkdir\n(S'PWNED'\ntR."


def mutated_xml(rng: np.random.Generator, content: bytes) -> bytes:
    """An XML file that is wrong somewhere, or asks for other files or for much memory."""
    if rng.integers(6) == 0:
        return mutated_bytes(rng, content)
    root = ElementTree.fromstring(content)
    parents = [element for element in root.iter() if len(element)]
    elements = [element for element in root.iter() if element.attrib]
    kind = rng.integers(8)
    if kind < 4:
        element = elements[rng.integers(len(elements))]
        key = list(element.attrib)[rng.integers(len(element.attrib))]
        element.set(
            key, str(rng.choice([str(value)[:300] for value in ODD] + ["1e300", "0 0", "nan nan nan", "-1"]))
        )
    elif kind == 4:
        parent = parents[rng.integers(len(parents))]
        parent.remove(parent[rng.integers(len(parent))])
    elif kind == 5:
        parent = parents[rng.integers(len(parents))]
        parent.append(copy.deepcopy(elements[rng.integers(len(elements))]))
    elif kind == 6:
        element = elements[rng.integers(len(elements))]
        element.tag = str(
            rng.choice(["body", "geom", "joint", "mujoco", "plugin", "include", "asset", "frame"])
        )
    else:
        root.append(ElementTree.fromstring(str(rng.choice(BOMBS))))
    return ElementTree.tostring(root)


BOMBS = (
    f'<include file="../{SECRET}"/>',
    f'<asset><mesh name="m" file="/{SECRET}.stl"/></asset>',
    f'<asset><texture name="t" type="2d" file="../{SECRET}.png"/></asset>',
    '<asset><texture name="t" type="2d" builtin="flat" width="200000" height="200000"/></asset>',
    '<asset><hfield name="h" nrow="200000" ncol="200000" size="1 1 1 1"/></asset>',
    '<size memory="900G"/>',
    '<size nuser_body="2000000000"/>',
    '<worldbody><replicate count="200000000" offset="1 0 0"><geom size="1"/></replicate></worldbody>',
    '<worldbody><composite type="cable" count="100000000 1 1" size="1"/></worldbody>',
    '<worldbody><flexcomp name="f" type="grid" count="4000 4000 400" spacing="1 1 1"/></worldbody>',
    '<extension><plugin plugin="mujoco.none"/></extension>',
    '<option timestep="1e-12"/>',
    '<compiler meshdir="/" texturedir="/"/>',
)  # fmt: skip
