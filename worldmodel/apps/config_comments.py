"""The comments of `configs/`, put beside the keys that they explain."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

_LINE = re.compile(r"(?P<indent> *)(?P<key>\w+):(?: (?P<value>.*))?")
_COMMENT = re.compile(r"(?:^|\s)# (?P<comment>.*)$")


@dataclass
class Comments:
    """By dotted key: what stands above a key, and what stands beside it."""

    above: dict[str, list[str]] = field(default_factory=dict)
    beside: dict[str, str] = field(default_factory=dict)


def with_comments(text: str, sources: Mapping[str, str]) -> str:
    """The YAML of a composed configuration, with the comments of its files, by the prefix of their keys."""
    comments, lines = Comments(), []
    for prefix, source in sources.items():
        _collect(comments, source, prefix)
    for key, indent, line in _keyed(text.splitlines()):
        lines += [f"{' ' * indent}{above}" for above in comments.above.get(key, ())]
        lines.append(f"{line}  # {comments.beside[key]}" if key in comments.beside else line)
    return "\n".join(lines)


def _collect(found: Comments, text: str, prefix: str) -> None:
    above: list[str] = []
    for key, _, line in _keyed(text.splitlines()):
        if line.startswith("# "):
            above.append(line)
        elif not key:
            above = []
        else:
            if above:
                found.above[prefix + key] = above
            above = []
            if match := _COMMENT.search(line):
                found.beside[prefix + key] = match["comment"]


def _keyed(lines: list[str]) -> Iterator[tuple[str, int, str]]:
    """Each line with the dotted key that it gives a value, or "", and its indent."""
    path: list[tuple[int, str]] = []
    for line in lines:
        match = _LINE.match(line)
        if match is None:
            yield "", 0, line
            continue
        indent = len(match["indent"])
        path = [(depth, key) for depth, key in path if depth < indent] + [(indent, match["key"])]
        yield ".".join(key for _, key in path), indent, line
