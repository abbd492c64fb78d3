"""The guide's code runs as it stands there, its commands are commands, and its reader reads what we write."""

import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
from made_episodes import made_episode

import envs
from worldmodel.apps.cli import main
from worldmodel.apps.config import compose_config
from worldmodel.apps.verbs import VERBS
from worldmodel.data import EpisodeDataset
from worldmodel.data.shard import episode_arrays, write_shard
from worldmodel.data.store import EpisodeStore

GUIDE = Path(__file__).parents[2] / "docs" / "datasets.md"
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", GUIDE.read_text(), flags=re.DOTALL)
PYTHON = [block for language, block in BLOCKS if language == "python"]
COMMANDS = [
    line
    for language, block in BLOCKS
    for line in block.splitlines()
    if not language and re.match(r"(PYTHONPATH=\. )?worldmodel ", line)
]
FILES = {block.split()[1]: block for block in PYTHON if block.startswith("# ")}  # blocks that are a module


def words_of(command: str) -> list[str]:
    words = shlex.split(command, comments=True)
    return words[words.index("worldmodel") + 1 :]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What a reader of the guide has before its Python begins: recorded states, modules, a robot's logs."""
    path = tmp_path_factory.mktemp("guide")
    chance = np.random.default_rng(0)
    (path / "logs").mkdir()
    for index in range(3):
        rows = np.column_stack([np.arange(31) * 0.05, chance.uniform(-1, 1, (31, 6))])
        header = "time,q0,q1,dq0,dq1,u0,u1"
        np.savetxt(path / "logs" / f"run-{index}.csv", rows, delimiter=",", header=header, comments="")
    np.savez(path / "logs" / "run-3.npz", state=chance.normal(size=(21, 4)), torque=np.full((20, 2), 2.5))
    for name, block in FILES.items():
        (path / name).write_text(block)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        patch.syspath_prepend(path)
        (command,) = [line for line in COMMANDS if "dataset=data/states" in line and "collect" in line]
        assert main([*words_of(command), "episodes=1"]) == 0
        yield path
        for name in FILES:
            sys.modules.pop(name.removesuffix(".py"), None)


@pytest.fixture(scope="module")
def names(folder):
    """What the guide's Python has defined, once all of it has run in order."""
    found: dict = {"__name__": "guide"}
    for block in PYTHON:
        if block not in FILES.values():
            exec(compile(block, str(GUIDE), "exec"), found)
    return found


def test_the_python_of_the_guide_runs_in_order(names):
    assert len(PYTHON) == 7
    assert set(FILES) == {"my_policies.py", "my_arm.py"}
    assert names["metrics"]["loss"].isfinite()


def test_logs_become_episodes(names, folder):
    episodes = list(EpisodeDataset.open("data/arm"))
    sources = ["run-0.csv", "run-1.csv", "run-2.csv", "run-3.npz"]
    assert [episode.info["source"] for episode in episodes] == sources
    assert [episode.num_steps for episode in episodes] == [30, 30, 30, 20]
    np.testing.assert_array_equal(episodes[3].action, np.full((20, 2), 0.5, np.float32))
    rows = np.loadtxt(folder / "logs" / "run-1.csv", delimiter=",", skiprows=1)
    np.testing.assert_array_equal(episodes[1].observation["state"], rows[:, 1:5].astype(np.float32))
    np.testing.assert_allclose(episodes[1].action, rows[:-1, 5:] / 5, rtol=1e-6)
    (block,) = [block for block in PYTHON if "read_log" in block]
    exec(compile(block, str(GUIDE), "exec"), {"__name__": "guide"})  # again: nothing is added
    assert len(EpisodeDataset.open("data/arm")) == 4


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_composes(command):
    words = words_of(command)
    verb = next(verb for verb in VERBS if words[: len(verb.split())] == verb.split())
    rest = VERBS[verb].overrides_of(words[len(verb.split()) :])
    compose_config(verb.replace(" ", "_"), rest)


def test_the_commands_on_logs_run(names, capsys):
    on_logs = [line for line in COMMANDS if "dataset=data/arm" in line]
    assert [words_of(line)[:2] for line in on_logs[:2]] == [["data", "info"], ["data", "show"]]
    small = ["num_updates=2", "model.hidden_dim=16", "model.encoder_dim=16", "planner.num_candidates=24"]
    for line in on_logs:
        assert main(words_of(line) + (small if "train" in line else [])) == 0
    out = capsys.readouterr().out
    assert "Arm-v0" in out
    assert "trained; see it act with:  worldmodel control checkpoint=runs/arm" in out


def test_the_function_of_the_guide_acts(folder):
    (command,) = [line for line in COMMANDS if "my_policies" in line]
    assert main([*words_of(command), "episodes=1", "env.action_repeat=100"]) == 0
    (episode,) = EpisodeDataset.open("data/pushed")
    assert episode.info["policy"] == "my_policies:push_back"


def test_the_reader_of_the_guide_reads_what_we_write(names, tmp_path):
    (block,) = [block for block in PYTHON if "def read_dataset" in block]
    reader = block[: block.index("\n\n\nfor facts")]
    assert len(reader.splitlines()) <= 33
    episodes = [
        made_episode(number, number + 2, terminated=number == 3, pixels=True, plan=True)
        for number in range(1, 6)
    ]
    store = EpisodeStore(tmp_path, create=True)
    written = [
        store.write(episodes[first:last], compresses_pixels=first == 1)
        for first, last in ((0, 1), (1, 3), (3, 5))
    ]
    (tmp_path / "shards" / written[0] / "shard.json").unlink()  # as in schema version 1
    (tmp_path / "shards" / ".tmp-1-aa-x").mkdir()
    expect(names, tmp_path, episodes)
    # The moment between the commit of a merged shard and the removal of what it replaces.
    merged = f"{written[1].split('-')[0]}-1-00000000-merged"
    write_shard(
        tmp_path / "shards",
        merged,
        episodes[1:],
        replaces={written[1]: 2, written[2]: 2},
        ignores=written[1:3],
    )
    expect(names, tmp_path, episodes)
    file = tmp_path / "shards" / merged / "action.npy"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(AssertionError, match=r"action\.npy is damaged"):
        list(names["read_dataset"](tmp_path))


def expect(names, path, episodes):
    """The guide's reader finds just these episodes, to the bit."""
    for (facts, columns), episode in zip(names["read_dataset"](path), episodes, strict=True):
        arrays = episode_arrays(episode)
        assert columns.keys() == arrays.keys()
        for name, array in arrays.items():
            assert columns[name].dtype == array.dtype
            np.testing.assert_array_equal(columns[name], array)
        assert facts == {
            "num_steps": episode.num_steps,
            "terminated": episode.terminated,
            "truncated": episode.truncated,
            "info": episode.info,
        }


def test_the_numbers_of_the_guide_are_ours(names):
    """What the page says of file versions, names and sizes holds for what is written."""
    shard = min(Path("data/arm/shards").iterdir())
    assert re.fullmatch(r"\d{20}-\d+-[0-9a-f]{8}", shard.name)
    for file in shard.glob("*.npy"):
        assert file.read_bytes()[:8] == b"\x93NUMPY\x01\x00"
    text, cheetah = GUIDE.read_text(), envs.make("cheetah-run")
    cheetah.reset()
    state_dim, action_dim = cheetah.observation_space["state"].shape[0], cheetah.action_space.shape[0]
    step = 4 * (state_dim + action_dim + 1 + 2 * action_dim)
    sizes = [step, step + cheetah.physics_state().nbytes, 3 * 64 * 64, 3 * 84 * 84]
    assert [int(size.replace(",", "")) for size in re.findall(r"\| ([\d,]+) \| [\d.]+ GB", text)] == sizes
