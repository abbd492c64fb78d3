"""Several processes that train one model: together they do what one does, and none is left waiting."""

from dataclasses import replace
from pathlib import Path

import pytest
import together
import torch
from made_linear import linear_batch
from safetensors.torch import load_file

from worldmodel.errors import ConfigError, RunError
from worldmodel.training import ALONE, Processes, join
from worldmodel.training.packing import Layout, layout_of, packed, unpacked

SAME = [*together.TRAINERS, "every_loss", "handed_out"]
COUNT = 2


def end(processes) -> list[tuple[int, str]]:
    """Exit code and output of each; none is left behind."""
    try:
        found = [(process.communicate(timeout=900)[0], process.returncode) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(code, out) for out, code in found]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """What two processes made of every case, in one start."""
    folder = tmp_path_factory.mktemp("together")
    codes = end(together.start_together(folder, *SAME, "half", "compiled", count=COUNT))
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


def test_a_checkpoint_of_two_goes_on_in_one(folder):
    assert_close(together.other_half(ALONE, folder), {
        name: value
        for name, value in together.CASES["returns"](ALONE, folder).items()
        if not name.startswith(("0.", "1."))
    })  # fmt: skip


def test_compiled_losses_ask_the_other_process_too(folder):
    assert_close(load_file(folder / "compiled.0"), together.CASES["sigreg"](ALONE, folder))


def test_where_one_fails_the_others_are_told_why(tmp_path):
    (_, told), (_, failed) = codes = end(together.start_together(tmp_path, "one_fails"))
    assert [code for code, _ in codes] == [2, 2], codes
    assert failed == "DatasetError: shard 7 is damaged\n"
    assert "PeerError: process 1 of 2 failed: shard 7 is damaged\n" in told


def test_where_one_hangs_the_others_do_not_wait_for_ever(tmp_path):
    first, second = together.start_together(tmp_path, "one_hangs")
    try:
        ((code, out),) = end([first])
    finally:
        second.kill()
        second.communicate()
    assert code == 2
    assert "PeerError: one of the 2 processes does not answer for 10 minutes" in out


def test_a_packed_batch_comes_back_in_parts_without_what_nothing_is_learned_from():
    batch = linear_batch(together.WINDOW)
    pixels = torch.randint(0, 256, (16, together.WINDOW + 1, 3, 4, 4)).to(torch.uint8)
    batch = replace(batch, observation=batch.observation | {"pixels": pixels}, extra={"more": batch.reward})
    layout = Layout.decoded(layout_of(batch).encoded())
    rows = packed(batch, layout)
    assert rows.shape == (16, layout.num_bytes)
    back = unpacked(rows[4:8], layout)
    assert back.extra == {}
    assert back.observation.keys() == {"state", "pixels"}
    for name, tensor in back.observation.items():
        assert torch.equal(tensor, batch.observation[name][4:8])
    for name in ("action", "reward", "terminated", "valid"):
        assert torch.equal(getattr(back, name), getattr(batch, name)[4:8])
    with pytest.raises(ValueError, match="those before had"):
        packed(linear_batch(together.WINDOW), layout)


class Third(Processes):
    """The third of four."""

    rank, count = 2, 4


def test_parts_are_even_or_refused():
    assert torch.equal(Third().cut(torch.arange(12)), torch.tensor([6, 7, 8]))
    with pytest.raises(
        ConfigError, match=r"training\.batch_size=13: 4 processes must share .*batch_size=12,"
    ):
        Third().part(13)
    with pytest.raises(ConfigError, match=r"give training\.batch_size=4, or start as many"):
        Third().part(2)


def test_without_a_launcher_one_is_alone(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "TORCHELASTIC_RESTART_COUNT"):
        monkeypatch.delenv(name, raising=False)
    assert type(join()) is Processes
    monkeypatch.setenv("WORLD_SIZE", "4")  # of a cluster's scheduler, perhaps
    assert join().count == 1
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(RunError, match=r"RANK=0, WORLD_SIZE=4: .*Start them with torchrun, or unset both"):
        join()
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "2")
    assert join().is_restarted
