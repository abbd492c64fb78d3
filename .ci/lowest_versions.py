"""Print a constraints file with the lowest version of each dependency that pyproject.toml allows.

    python .ci/lowest_versions.py > constraints.txt

What pip installs with it (`make test-lowest`) is what the lower bounds promise to work.
"""

import re
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"
_REQUIREMENT = re.compile(r"(?P<name>[\w.-]+)(\[.*\])?>=(?P<lowest>[\w.]+)")


def lowest_versions() -> dict[str, str]:
    """Of every dependency, and of what the tests need, by name. `ValueError`: one has none."""
    project = tomllib.loads(PYPROJECT.read_text())["project"]
    found = {}
    for requirement in [*project["dependencies"], *project["optional-dependencies"]["dev"]]:
        match = _REQUIREMENT.match(requirement)
        if match is None:
            raise ValueError(f"{requirement!r} of {PYPROJECT} has no lower bound: write NAME>=VERSION")
        found[match["name"]] = match["lowest"]
    return found


if __name__ == "__main__":
    print("\n".join(f"{name}=={version}" for name, version in sorted(lowest_versions().items())))
