"""The guide's code runs as it stands there."""

import re
from pathlib import Path

import pytest

GUIDE = Path(__file__).parents[2] / "docs" / "planners.md"
BLOCKS = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), flags=re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=[f"block{index}" for index in range(len(BLOCKS))])
def test_each_block_of_the_guide_runs(block):
    exec(compile(block, str(GUIDE), "exec"), {"__name__": "guide"})


def test_the_guide_shows_how_to_write_a_planner_in_30_lines():
    (written,) = [block for block in BLOCKS if "(SamplingPlanner)" in block]
    assert len(written.splitlines()) <= 30
    assert len(BLOCKS) == 6
