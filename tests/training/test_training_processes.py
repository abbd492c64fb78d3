"""Several processes that train one model: together they do what one does, and none is left waiting."""

from pathlib import Path

import pytest
import together
import torch
from safetensors.torch import load_file

from worldmodel.training import ALONE

SAME = [*together.TRAINERS, "every_loss", "handed_out"]
COUNT = 2


def end(processes, *, timeout: float = 240) -> list[tuple[int, str]]:
    """Exit code and output of each."""
    found = [(process.communicate(timeout=timeout)[0], process.returncode) for process in processes]
    return [(code, out) for out, code in found]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """What two processes made of every case, in one start."""
    folder = tmp_path_factory.mktemp("together")
    codes = end(together.start_together(folder, *SAME, "half", count=COUNT))
    assert [code for code, _ in codes] == [0] * COUNT, codes
    return folder


def assert_close(found: dict, expected: dict, *, atol: float = 2e-5, rtol: float = 2e-4) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        # The rank counts roots of numbers that may be next to 0.
        more = 100 if name.endswith("embedding_rank") else 1
        torch.testing.assert_close(
            found[name], value, atol=more * atol, rtol=more * rtol, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("case", SAME)
def test_two_processes_do_what_one_does(folder, case):
    alone = together.CASES[case](ALONE, folder)
    assert alone
    for rank in range(COUNT):
        assert_close(load_file(folder / f"{case}.{rank}"), alone)


@pytest.mark.parametrize("case", together.TRAINERS)
def test_all_processes_hold_the_same_weights_to_the_bit(folder, case):
    first, *others = (load_file(folder / f"{case}.{rank}") for rank in range(COUNT))
    for other in others:
        assert all(torch.equal(value, other[name]) for name, value in first.items() if "model" in name)
