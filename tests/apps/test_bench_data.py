"""bench data: all contenders give the steps that were written, and whoever cannot is told with the reason."""

import csv
import json
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest

from worldmodel.apps.bench import data
from worldmodel.apps.bench.data_contenders import CONTENDERS
from worldmodel.apps.bench.data_recording import made_up_recording
from worldmodel.apps.cli import main

SIZES = {
    "state": {"episodes": 4, "steps": 12, "observation_dim": 5, "action_dim": 2, "hdf5_chunk": 5},
    "pixels": {"episodes": 3, "steps": 10, "image_size": 16, "action_dim": 2, "hdf5_chunk": 4},
}
TINY = [f"{kind}.{key}={value}" for kind, sizes in SIZES.items() for key, value in sizes.items()] + [
    "horizon=4",
    "batch_size=6",
    "seconds=0.005",
    "repeats=2",
    "write_repeats=2",
]
HERE = [name for name, contender in CONTENDERS.items() if contender.package is None]


def table(path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def recorded(kind):
    return made_up_recording(kind, SIZES[kind], max_shard_bytes=2**20, seed=0)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    output = tmp_path_factory.mktemp("data") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("worldmodel.apps.bench.turns.find_spec", lambda name: None)
        assert main(["bench", "data", f"output={output}", *TINY]) == 0
    return output


def test_every_contender_is_a_row_for_each_kind_of_steps(measured):
    rows = table(measured / "data.csv")
    assert [(row["kind"], row["contender"]) for row in rows] == [
        (kind, name) for kind in SIZES for name in CONTENDERS
    ]
    for row in rows:
        sizes = SIZES[row["kind"]]
        assert int(row["num_episodes"]) == sizes["episodes"]
        assert int(row["num_steps"]) == sizes["episodes"] * sizes["steps"]
        if row["contender"] in HERE:
            assert row["status"] == "ok"
            assert row["num_writes"] == "2"
            assert int(row["num_batches"]) >= 1
            assert int(row["num_bytes"]) >= int(row["raw_bytes"])
            per_episode = float(row["write_steps_per_s"]) / float(row["write_episodes_per_s"])
            assert per_episode == pytest.approx(sizes["steps"], rel=1e-3)
        else:
            package = CONTENDERS[row["contender"]].package
            assert row["status"] == f"not installed: pip install {package}"
            assert row["windows_per_cpu_s"] == row["write_steps_per_s"] == row["num_bytes"] == ""


def test_shares_are_of_plain_numpy(measured):
    rows = [row for row in table(measured / "data.csv") if row["status"] == "ok"]
    for row in rows:
        (reference,) = [
            other["windows_per_cpu_s"]
            for other in rows
            if other["kind"] == row["kind"] and other["contender"] == "numpy"
        ]
        share = float(row["windows_per_cpu_s"]) / float(reference)
        assert float(row["share_of_numpy"]) == pytest.approx(share, rel=1e-4)


def test_the_page_tells_where_its_numbers_come_from(measured):
    page = (measured / "data.md").read_text()
    provenance = json.loads((measured / "data.json").read_text())
    for key in ("commit", "processor", "command"):
        assert provenance[key] in page
    assert "| LeRobot | - | - | - | - | - | - | - | not installed: pip install lerobot |" in page
    assert "## Pixels: 3 episodes x 10 steps" in page
    assert (measured / "data.png").stat().st_size > 10_000


def test_what_was_written_is_gone_afterwards(measured):
    assert sorted(path.name for path in measured.iterdir()) == [
        "data.csv",
        "data.json",
        "data.md",
        "data.png",
    ]


def test_windows_are_what_was_asked_for():
    recording = recorded("state")
    found = recording.windows(np.array([0, 12, 20, 3, 20]), horizon=4)
    assert {name: array.shape for name, array in found.items()} == {
        "observation": (5, 5, 5),
        "action": (5, 4, 2),
        "reward": (5, 4),
    }
    for place, (episode, first) in enumerate([(0, 0), (1, 0), (1, 8), (0, 3), (1, 8)]):
        source = recording.episodes[episode]
        states = source.observation["state"][first : first + 5]
        np.testing.assert_array_equal(found["observation"][place], states)
        np.testing.assert_array_equal(found["action"][place], source.action[first : first + 4])
        np.testing.assert_array_equal(found["reward"][place], source.reward[first : first + 4])


@pytest.mark.parametrize("kind", SIZES)
@pytest.mark.parametrize("name", CONTENDERS)
def test_all_give_the_same_numbers(tmp_path, name, kind):
    contender, recording = CONTENDERS[name], recorded(kind)
    if contender.package is not None:
        pytest.importorskip(contender.package)
    contender.write(tmp_path, recording)
    length = recording.episode_length
    starts = np.array([0, length - 4, length, 2, recording.num_steps - 4, 2])
    with contender.open(tmp_path, recording, 4) as windows:
        assert data.difference(windows(starts), recording.windows(starts, 4)) is None
        assert data.difference(windows(starts[::-1]), recording.windows(starts[::-1], 4)) is None


@pytest.mark.parametrize("name", [name for name in CONTENDERS if name not in HERE])
def test_the_output_may_be_a_relative_path(tmp_path, monkeypatch, name, capsys):
    package = CONTENDERS[name].package
    assert package is not None
    pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    arguments = ["bench", "data", "kinds=[state]", f"contenders=[{name}]", "output=out"]
    assert main([*arguments, *TINY]) == 0
    assert "failed" not in capsys.readouterr().out
    assert [row["status"] for row in table(tmp_path / "out" / "data.csv")] == ["ok"]


def test_merging_leaves_few_shards(tmp_path):
    recording = recorded("state")
    for name in ("maps", "maps_merged"):
        (tmp_path / name).mkdir()
        CONTENDERS[name].write(tmp_path / name, recording)
    assert len(list((tmp_path / "maps" / "shards").iterdir())) == 4
    assert len(list((tmp_path / "maps_merged" / "shards").iterdir())) == 1


@pytest.mark.parametrize("horizon", [1, 4, 12])
def test_windows_start_wherever_a_whole_one_fits(horizon):
    recording = recorded("state")
    rng = np.random.default_rng(0)
    starts = data.draw_starts(recording, batch_size=2000, horizon=horizon, rng=rng)
    assert len(starts) == 2000
    assert set(starts // 12) == {0, 1, 2, 3}
    assert set(starts % 12) == set(range(12 - horizon + 1))


def test_pictures_move():
    images = recorded("pixels").episodes[0].observation["pixels"]
    assert images.shape == (11, 3, 16, 16)
    assert images.dtype == np.uint8
    assert len({image.tobytes() for image in images}) == 11


def test_who_gives_other_numbers_or_breaks_is_told(tmp_path, monkeypatch, capsys):
    @contextmanager
    def the_other_way_round(folder, recording, horizon):
        yield lambda starts: recording.windows(starts[::-1], horizon)

    @contextmanager
    def too_long(folder, recording, horizon):
        yield lambda starts: recording.windows(np.zeros_like(starts), horizon + 1)

    @contextmanager
    def wrong_later(folder, recording, horizon):
        num_calls = 0

        def windows(starts):
            nonlocal num_calls
            num_calls += 1
            return recording.windows(starts if num_calls < 5 else starts[::-1], horizon)

        yield windows

    def full_disk(folder, recording):
        raise OSError(28, "No space left on device")

    changed = {
        "memory": {"open": the_other_way_round},
        "maps": {"open": too_long},
        "maps_merged": {"open": wrong_later},
        "npz": {"write": full_disk},
    }
    for name, change in changed.items():
        monkeypatch.setitem(data.CONTENDERS, name, replace(CONTENDERS[name], **change))
    arguments = ["bench", "data", "kinds=[state]", "contenders=[numpy,memory,maps,maps_merged,npz]"]
    assert main([*arguments, f"output={tmp_path}", *TINY]) == 0
    rows = {row["contender"]: row for row in table(tmp_path / "data.csv")}
    assert "npz (state) failed: OSError: [Errno 28] No space left on device" in capsys.readouterr().out
    assert rows["numpy"]["status"] == "ok"
    assert "observation holds other numbers than were written" in rows["memory"]["status"]
    assert "observation holds other numbers than were written" in rows["maps_merged"]["status"]
    assert "observation is float32[6, 6, 5], not float32[6, 5, 5]" in rows["maps"]["status"]
    assert "No space left on device" in rows["npz"]["status"]
    for name in changed:
        assert rows[name]["windows_per_cpu_s"] == rows[name]["share_of_numpy"] == ""


def test_what_is_slow_is_written_once(tmp_path):
    arguments = ["bench", "data", "kinds=[state]", "contenders=[numpy,maps]", f"output={tmp_path}"]
    assert main([*arguments, *TINY, "slow_s=0.000001", "write_repeats=3"]) == 0
    assert [row["num_writes"] for row in table(tmp_path / "data.csv")] == ["1", "1"]


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["kinds=[pixel]"], ["there is no kind 'pixel'", "did you mean pixels"]),
        (["kinds=[]"], ["kinds=[]: must name at least one of state"]),
        (["contenders=[minar]"], ["there is no contender 'minar'", "did you mean minari"]),
        (["contenders=[npz,npz]"], ["npz must be named once"]),
        (["batch_size=0"], ["batch_size=0: must be at least 1"]),
        (["repeats=0"], ["repeats=0: must be at least 1"]),
        (["write_repeats=0"], ["write_repeats=0: must be at least 1"]),
        (["horizon=2000"], ["horizon=2000: no window fits into state.steps=1000"]),
        (["state.episodes=0"], ["state.episodes: 0 must be a whole number, at least 1"]),
        (["pixels.image_size=0"], ["pixels.image_size: 0 must be a whole number, at least 1"]),
        (["seconds=-1"], ["seconds=-1.0: must be more than 0"]),
        (["max_megabytes=0"], ["max_megabytes=0: must be more than 0"]),
        (["seed=-1"], ["seed=-1: must be at least 0"]),
        (["horizn=8"], ["no config key 'horizn'", "did you mean horizon"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_a_mistake_is_one_line(tmp_path, refused, overrides, expected):
    line = refused("bench", "data", f"output={tmp_path / 'out'}", *overrides)
    for part in expected:
        assert part in line
    assert not (tmp_path / "out").exists()


def test_an_output_that_cannot_be_written(tmp_path, refused):
    (tmp_path / "file").touch()
    assert "cannot write output=" in refused("bench", "data", f"output={tmp_path / 'file' / 'x'}")
