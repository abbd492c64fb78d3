"""`worldmodel data`: what it says of a dataset is so, and what it writes holds just what was asked for."""

from dataclasses import replace

import numpy as np
import pytest

from worldmodel.apps.cli import main
from worldmodel.apps.datasets import rewrite
from worldmodel.apps.datasets.conditions import Condition
from worldmodel.data import Episode, EpisodeDataset
from worldmodel.data.merging import merge_shards
from worldmodel.data.store import EpisodeStore
from worldmodel.errors import ConfigError


def episode(number: int, num_steps: int) -> Episode:
    """Its return is 10 * number; every action of the odd ones is at its bound."""
    return Episode(
        observation={"state": np.arange(2 * (num_steps + 1), dtype=np.float32).reshape(-1, 2) + number},
        action=np.full((num_steps, 3), 1.0 if number % 2 else 0.5, np.float32),
        reward=np.full(num_steps, 10 * number / num_steps, np.float32),
        terminated=number % 3 == 0,
        truncated=number % 3 != 0,
        info={
            "number": number,
            "policy": "planner" if number > 3 else "random",
            "my-key.of_2": number,
            "code": f"00{number}",
        },
    )


@pytest.fixture
def path(tmp_path):
    """Episodes 1 to 6 of 4 steps, of number 6 of 8."""
    path = tmp_path / "walk"
    dataset = EpisodeDataset(path, mode="a", info={"task": "walker-walk", "action_repeat": 2})
    for number in range(1, 7):
        dataset.append(episode(number, 8 if number == 6 else 4))
    return path


def numbers(path) -> list[int]:
    return [each.info["number"] for each in EpisodeDataset.open(path)]


def test_info_tells_what_there_is(path, capsys):
    assert main(["data", "info", f"dataset={path}"]) == 0
    out = capsys.readouterr().out
    for part in ("walker-walk", "6 (2 terminated)", "28", "6 shards", "float32[2]"):
        assert part in out
    for part in ("return: 10 to 60; mean 35 (95 % interval ", "42.9% at their bound, the largest is 1"):
        assert part in out
    for part in ("data filter knows: number, policy, my-key.of_2, code, return", "0.0048 MB"):
        assert part in out
    lines = [line for line in out.splitlines() if "state[0]" in line]
    # From 1 (the first number of episode 1) to 22 (the last of episode 6).
    assert [word for word in lines[0].split() if word not in "│|"][1::3] == ["1", "22"]


def test_info_tells_who_acted_how_often_and_bins_whole_numbers(path, capsys):
    assert main(["data", "info", f"dataset={path}"]) == 0
    rows = [[cell.strip() for cell in line.split("│")] for line in capsys.readouterr().out.splitlines()]
    rows = [row[1:-1] for row in rows if len(row) > 2]
    assert ["random", "-", "3", "20 (95 % interval -4.841 to 44.84)"] in rows
    assert any(row[:3] == ["planner", "-", "3"] for row in rows)
    lengths = [row for row in rows if row[0] in {str(number) for number in range(3, 10)}]
    assert [(row[0], row[1]) for row in lengths] == [
        ("4", "5"),
        ("5", "0"),
        ("6", "0"),
        ("7", "0"),
        ("8", "1"),
    ]


def test_actions_beyond_their_bounds_are_told(path, capsys):
    for verb in ("info", "validate"):
        assert main(["data", verb, f"dataset={path}"]) == 0
        assert "warning" not in capsys.readouterr().out
    wild = replace(episode(9, 4), action=np.full((4, 3), -20, np.float32))
    EpisodeDataset(path, mode="a").append(wild)
    for verb in ("info", "validate"):
        assert main(["data", verb, f"dataset={path}"]) == 0
        out = capsys.readouterr().out
        assert "warning: actions reach 20, and they must lie in [-1, 1]" in out
        assert "divide each by its limit" in out


@pytest.mark.parametrize("verb", ["info", "show"])
def test_a_dataset_that_is_compacted_meanwhile_is_looked_at_again(path, tmp_path, monkeypatch, verb):
    num_calls, num_bytes = 0, EpisodeStore.num_bytes

    def merged_meanwhile(store):
        nonlocal num_calls
        num_calls += 1
        if num_calls == 1:
            merge_shards(EpisodeStore(path), 2**20)
            raise FileNotFoundError("a shard")
        return num_bytes(store)

    monkeypatch.setattr(EpisodeStore, "num_bytes", merged_meanwhile)
    output = [] if verb == "info" else [f"output={tmp_path / 'page'}"]
    assert main(["data", verb, f"dataset={path}", *output]) == 0
    assert num_calls == 2


def test_validate_says_ok_or_names_the_damaged_shards(path, capsys, refused):
    assert main(["data", "validate", f"dataset={path}"]) == 0
    assert "ok: 6 episodes in 6 shards" in capsys.readouterr().out
    store = EpisodeStore(path)
    name = store.shard_names()[3]
    file = store.shard_path(name) / "reward.npy"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    line = refused("data", "validate", f"dataset={path}")
    assert "1 of 6 shards is damaged" in line
    assert name in line
    assert "5 episodes in the others are whole" in line


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        (["return>30"], [4, 5, 6]),
        (["return >= 30", "return<60"], [3, 4, 5]),
        (["policy==random"], [1, 2, 3]),
        (["policy!=random", "length==4"], [4, 5]),
        (["terminated==true"], [3, 6]),
        (["terminated==False", "number<5"], [1, 2, 4]),
        (["truncated!=True"], [3, 6]),
        (["truncated==FALSE"], [3, 6]),
        (["number<=2.5"], [1, 2]),
        (["my-key.of_2>=5"], [5, 6]),
        (["code=='003'"], [3]),
        (['code!="003"', "number<=4"], [1, 2, 4]),
        (["code==003"], None),  # the number 3
    ],
)
def test_filter_keeps_what_fulfils_all_conditions(path, tmp_path, conditions, expected):
    output = tmp_path / "kept"
    code = main(["data", "filter", f"dataset={path}", *conditions, f"output={output}"])
    assert code == (2 if expected is None else 0)
    if expected is None:
        return
    assert numbers(output) == expected
    assert EpisodeDataset.open(output).info == EpisodeDataset.open(path).info
    assert len(numbers(path)) == 6


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ["retrn>3"],
            "no 'retrn' (did you mean return?). Known: number, policy, my-key.of_2, code, return, length",
        ),
        (["policy>3"], "cannot be compared with 3 (a number) by >: in quotes it is a string: 'policy>\"3\"'"),
        (["code==007"], "code is '001' (a string), which cannot be compared with 007 (a number) by =="),
        (["truncated!=yes"], "by !=: write truncated!=true or false"),
        (["truncated==1"], "truncated is True (true or false)"),
        (["return==high"], "(a number), which cannot be compared with high (a string)"),
        (["policy=colored"], "policy=colored is no condition: two = compare, 'policy==colored'"),
        (["outptu=x"], "no config key 'outptu' (from 'outptu=x') (did you mean output?)"),
        (["return>1e9"], "none of the 6 episodes"),
        ([], "a condition is missing"),
        (["where=[return]"], "'return' is no condition"),
    ],
)
def test_conditions_that_make_no_sense_are_refused(path, tmp_path, refused, words, expected):
    assert expected in refused("data", "filter", f"dataset={path}", *words, f"output={tmp_path / 'out'}")
    assert not (tmp_path / "out").exists()


def test_values_of_conditions_are_of_their_kind():
    values = [Condition.parse(f"x=={text}").value for text in ("3", "3.5", "true", "'a b'", "a")]
    assert values == [3, 3.5, True, "a b", "a"]
    with pytest.raises(ConfigError, match="is no condition"):
        Condition.parse("return=3")


def test_split_puts_each_episode_on_one_side(path, tmp_path, refused):
    output = tmp_path / "parts"
    command = ["data", "split", f"dataset={path}", "fraction=0.34", f"output={output}"]
    assert main(command) == 0
    train, held_out = numbers(output / "train"), numbers(output / "held-out")
    assert (len(train), len(held_out)) == (4, 2)
    assert sorted(train + held_out) == [1, 2, 3, 4, 5, 6]
    assert "exists: choose another folder" in refused(*command)
    again = tmp_path / "again"
    assert main([*command[:-1], f"output={again}"]) == 0
    assert numbers(again / "train") == train
    assert main([*command[:-1], "seed=1", f"output={tmp_path / 'other'}"]) == 0
    assert numbers(tmp_path / "other" / "held-out") != held_out
    assert "leaves one side empty" in refused("data", "split", f"dataset={path}", "fraction=0.01", "output=x")


def test_merge_puts_datasets_one_after_the_other_in_few_shards(path, tmp_path, refused, monkeypatch):
    other = tmp_path / "other"
    EpisodeDataset(other, mode="a", info={"task": "walker-walk", "seed": 3}).append(episode(9, 4))
    output = tmp_path / "both"
    assert main(["data", "merge", f"datasets=[{path},{other}]", f"output={output}"]) == 0
    assert numbers(output) == [1, 2, 3, 4, 5, 6, 9]
    assert EpisodeDataset.open(output).info == {"task": "walker-walk", "action_repeat": 2, "seed": 3}
    assert len(EpisodeStore(output).shard_names()) == 1
    monkeypatch.setattr(rewrite, "MAX_SHARD_BYTES", 1)
    assert main(["data", "merge", f"datasets=[{path}]", f"output={tmp_path / 'many'}"]) == 0
    assert len(EpisodeStore(tmp_path / "many").shard_names()) == 6
    strange = tmp_path / "strange"
    EpisodeDataset(strange, mode="a", info={"task": "walker-run"}).append(episode(9, 4))
    line = refused("data", "merge", f"datasets=[{path},{strange}]", f"output={tmp_path / 'x'}")
    assert "has task='walker-run', those before it have 'walker-walk'" in line
    assert "must name at least one" in refused("data", "merge", f"output={tmp_path / 'x'}")
    wide = tmp_path / "wide"
    EpisodeDataset(wide, mode="a").append(replace(episode(9, 4), action=np.zeros((4, 5), np.float32)))
    line = refused("data", "merge", f"datasets=[{path},{wide}]", f"output={tmp_path / 'x'}")
    assert f"the dataset {wide} does not fit the dataset {path}: action is float32[5] instead of" in line


def test_a_copy_lies_in_no_dataset(path, refused):
    for verb in (["filter", "return>30"], ["split", "fraction=0.5"]):
        line = refused("data", *verb, f"dataset={path}", f"output={path / 'good'}")
        assert "lies inside of the dataset" in line
    assert "lies inside" in refused("data", "merge", f"datasets=[{path}]", f"output={path / 'shards' / 'x'}")
    assert len(numbers(path)) == 6


def test_what_is_whole_of_a_damaged_dataset_is_copied(path, tmp_path, capsys, refused):
    store = EpisodeStore(path)
    (store.shard_path(store.shard_names()[3]) / "reward.npy").write_bytes(b"nothing")
    output = tmp_path / "whole"
    line = refused("data", "filter", f"dataset={path}", "return>0", f"output={output}")
    assert "skip_damaged=true" in line
    assert main(["data", "filter", f"dataset={path}", "skip_damaged=true", f"output={output}"]) == 0
    assert "skipped a damaged shard" in capsys.readouterr().out
    assert numbers(output) == [1, 2, 3, 5, 6]


def test_merge_takes_each_episode_of_a_collection_once(tmp_path, capsys):
    kept, everything, others = (tmp_path / name for name in ("kept", "all", "others"))
    for folder, collection, found in ((kept, "a", [2]), (everything, "a", [1, 2, 3]), (others, "b", [2])):
        dataset = EpisodeDataset(folder, mode="a")
        for number in found:
            each = episode(number, 4)
            dataset.append(replace(each, info=each.info | {"collection": collection}))
    output = tmp_path / "out"
    assert main(["data", "merge", f"datasets=[{kept},{everything},{others}]", f"output={output}"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "4 episodes in" in out
    assert "1 left out: in already" in out
    found = [(each.info["collection"], each.info["number"]) for each in EpisodeDataset.open(output)]
    assert found == [("a", 2), ("a", 1), ("a", 3), ("b", 2)]
    assert main(["data", "merge", f"datasets=[{kept},{kept}]", f"output={tmp_path / 'one'}"]) == 0
    assert len(numbers(tmp_path / "one")) == 1


def test_compact_leaves_one_shard(path, capsys):
    assert main(["data", "compact", f"dataset={path}"]) == 0
    assert "5 shards fewer" in capsys.readouterr().out
    assert numbers(path) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("verb", ["info", "validate", "compact"])
def test_a_folder_without_a_dataset_is_told(tmp_path, refused, verb):
    assert "there is no dataset at" in refused("data", verb, f"dataset={tmp_path}")


def test_an_empty_dataset_is_told(tmp_path, refused):
    EpisodeDataset(tmp_path / "empty", mode="a")
    assert "holds no episode yet" in refused("data", "info", f"dataset={tmp_path / 'empty'}")


def test_an_output_that_cannot_be_written_is_told(path, tmp_path, refused):
    (tmp_path / "file").touch()
    output = f"output={tmp_path / 'file' / 'x'}"
    assert "cannot write" in refused("data", "split", f"dataset={path}", "fraction=0.5", output)
