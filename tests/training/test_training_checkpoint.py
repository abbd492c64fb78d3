import errno
import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from made_linear import linear_batch, linear_dataset

import worldmodel
from worldmodel.data import EpisodeDataset
from worldmodel.errors import CheckpointError
from worldmodel.training import (
    ReturnTrainer,
    TrainerSettings,
    checkpoint,
    find_checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from worldmodel.training.checkpoint import generator_state, restored_generator
from worldmodel.training.trainer_state import trainer_numbers, trainer_tensors


@pytest.fixture
def trainer(tiny_model) -> ReturnTrainer:
    """One that has something to lose: a continuation head, an odd number of updates, a value scale."""
    model = tiny_model(predicts_continuation=True, num_q=3)
    trainer = ReturnTrainer(
        model, TrainerSettings(num_td_steps=2, policy_every=2, average_fraction=0.1), seed=5
    )
    trainer.model.encoder.normalizer.update(torch.randn(50, 3))
    for seed in range(3):
        trainer.update(linear_batch(4, seed=seed))
    trainer.value_scale = 1.2345678901234567
    return trainer


def everything(trainer: ReturnTrainer) -> dict[str, torch.Tensor]:
    tensors, state = trainer_tensors(trainer), trainer_numbers(trainer)
    numbers = {name: torch.tensor(value, dtype=torch.float64) for name, value in state.items()}
    averaged = {f"averaged.{name}": value for name, value in trainer.averaged_model.state_dict().items()}
    return trainer.model.state_dict() | averaged | tensors | numbers


def assert_same(first: ReturnTrainer, second: ReturnTrainer) -> None:
    left, right = everything(first), everything(second)
    assert left.keys() == right.keys()
    for name in left:
        assert torch.equal(left[name], right[name]), name
    assert first.settings == second.settings


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def save(directory: Path, trainer: ReturnTrainer, env_steps: int, **kwargs) -> Path:
    return save_checkpoint(directory, trainer, {"env_steps": env_steps}, **kwargs)


def test_a_trainer_comes_back_to_the_bit(tmp_path, trainer):
    info = {"env_steps": 30, "task": "swing", "nested": {"list": [1, 2.5, None]}}
    path = save_checkpoint(tmp_path, trainer, info)
    assert path == tmp_path / "step_000000030"
    loaded = load_checkpoint(path)
    assert loaded.info == info
    assert loaded.path == path
    assert_same(loaded.trainer(), trainer)


def test_stopping_and_going_on_changes_nothing(tmp_path, tiny_model):
    """N updates, a checkpoint, M updates: the same as N + M, with batches sampled from the disk."""
    settings = TrainerSettings(num_td_steps=3, policy_every=2)
    linear_dataset(num_episodes=4, path=tmp_path / "data")

    def updates(trainer, number, chance):
        dataset = EpisodeDataset.open(tmp_path / "data")
        for _ in range(number):
            trainer.update(dataset.sample(8, trainer.window, chance))

    straight, chance = ReturnTrainer(tiny_model(num_q=3), settings, seed=1), np.random.default_rng(2)
    updates(straight, 9, chance)

    stopped, again = ReturnTrainer(tiny_model(num_q=3), settings, seed=1), np.random.default_rng(2)
    updates(stopped, 5, again)
    save_checkpoint(tmp_path, stopped, {"env_steps": 5, "sampling_state": generator_state(again)})
    loaded = load_checkpoint(tmp_path)
    resumed, chance_2 = loaded.trainer(), restored_generator(loaded.info["sampling_state"])
    updates(resumed, 4, chance_2)

    assert_same(resumed, straight)
    assert chance.random() == chance_2.random()
    updates(stopped, 4, again)  # saving changes nothing either
    assert_same(stopped, straight)


def test_a_numpy_generator_comes_back_through_json():
    generator = np.random.default_rng(3)
    generator.integers(100, size=7, dtype=np.int32)  # leaves half a draw behind
    restored = restored_generator(json.loads(json.dumps(generator_state(generator))))
    assert np.array_equal(
        restored.integers(9, size=5, dtype=np.int32), generator.integers(9, size=5, dtype=np.int32)
    )
    assert restored.random() == generator.random()


def test_a_fresh_trainer_can_be_saved(tmp_path, tiny_model):
    fresh = ReturnTrainer(tiny_model(), TrainerSettings(), seed=0)
    save(tmp_path, fresh, 0)
    assert_same(load_checkpoint(tmp_path).trainer(), fresh)


def test_numbers_as_keys_do_not_make_a_checkpoint_unreadable(tmp_path, trainer):
    save_checkpoint(tmp_path, trainer, {"env_steps": 1, "counts": {9: 1, 10: 2}})
    assert load_checkpoint(tmp_path).info["counts"] == {"9": 1, "10": 2}


def test_the_oldest_goes_only_after_the_new_one_is_there(tmp_path, trainer, monkeypatch):
    for env_steps in (100, 200):
        save(tmp_path, trainer, env_steps, keep=2)
    seen = []
    rmtree = checkpoint.shutil.rmtree

    def watched(path, **kwargs):
        seen.append((tmp_path / "step_000000300" / "state.json").is_file())
        rmtree(path, **kwargs)

    monkeypatch.setattr(checkpoint.shutil, "rmtree", watched)
    save(tmp_path, trainer, 300, keep=2)
    assert seen == [True]
    assert names(tmp_path) == ["step_000000200", "step_000000300"]


@pytest.mark.parametrize(("keep", "left"), [(1, 1), (3, 3), (9, 4)])
def test_as_many_are_kept_as_asked_for(tmp_path, trainer, keep, left):
    for env_steps in (1, 2, 3, 4):
        save(tmp_path, trainer, env_steps, keep=keep)
    assert names(tmp_path) == [f"step_{step:09d}" for step in (1, 2, 3, 4)][-left:]


def test_steps_are_ordered_as_numbers(tmp_path, trainer):
    for env_steps in (999_999_999, 1_000_000_000, 1_000_000_001):
        save(tmp_path, trainer, env_steps)
    assert names(tmp_path) == ["step_1000000000", "step_1000000001"]
    assert find_checkpoint(tmp_path).name == "step_1000000001"


def test_what_was_just_saved_is_never_removed(tmp_path, trainer):
    save(tmp_path, trainer, 200)
    assert save(tmp_path, trainer, 100, keep=1).is_dir()


def test_the_newer_state_of_a_step_replaces_the_older(tmp_path, trainer):
    save(tmp_path, trainer, 100)
    for seed in range(2):
        trainer.update(linear_batch(4, seed=seed))
        assert save(tmp_path, trainer, 100) == tmp_path / "step_000000100"
        assert names(tmp_path) == ["step_000000100"]
        assert_same(load_checkpoint(tmp_path).trainer(), trainer)


@pytest.mark.parametrize("fatal_call", [1, 2, 3])
def test_a_replacement_that_is_cut_short_loses_neither(tmp_path, trainer, monkeypatch, fatal_call):
    """Killed at any rename, the directory holds a whole checkpoint; the next save tidies up."""
    save(tmp_path, trainer, 100, keep=1)
    updates_before = trainer.num_updates
    trainer.update(linear_batch(4))
    rename, calls = Path.rename, []

    def fatal(self, target):
        calls.append(target)
        if len(calls) == fatal_call:
            raise KeyboardInterrupt
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", fatal)
        with pytest.raises(KeyboardInterrupt):
            save(tmp_path, trainer, 100, keep=1)
    is_committed = fatal_call > 1
    assert load_checkpoint(tmp_path).trainer().num_updates == updates_before + is_committed
    trainer.update(linear_batch(4))
    save(tmp_path, trainer, 100, keep=1)
    assert names(tmp_path) == ["step_000000100"]
    assert_same(load_checkpoint(tmp_path).trainer(), trainer)


@pytest.mark.parametrize("file", ["model.safetensors", "trainer.safetensors"])
def test_a_full_disk_leaves_earlier_checkpoints_and_nothing_else(tmp_path, trainer, monkeypatch, file):
    earlier = save(tmp_path, trainer, 100)
    save_file = checkpoint.save_file

    def full(tensors, path):
        if path.name != file:
            return save_file(tensors, path)
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    for env_steps in (100, 200):
        with pytest.raises(CheckpointError, match="No space left on device") as caught:
            save(tmp_path, trainer, env_steps)
        assert "free some space" in str(caught.value)
        assert "\n" not in str(caught.value)
        assert names(tmp_path) == [earlier.name]
    assert load_checkpoint(tmp_path).path == earlier


def test_what_a_killed_writer_left_is_swept_away(tmp_path, trainer):
    (tmp_path / ".tmp-1-abc-step_000000050").mkdir()
    (tmp_path / ".tmp-1-abc-step_000000050" / "model.safetensors").write_bytes(b"half")
    save(tmp_path, trainer, 100)
    assert names(tmp_path) == ["step_000000100"]


def test_a_directory_that_cannot_be_written_is_named(tmp_path, trainer):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=re.escape(str(tmp_path / "file"))):
        save(tmp_path / "file", trainer, 100)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def altered(path: Path) -> None:
    state = json.loads(path.read_text())
    state["settings"]["discount"] = 0.5
    path.write_text(json.dumps(state))


def newer(path: Path) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 99}))


def with_digest(state: dict) -> str:
    """A state whose digest is right, as another program might write it."""
    content = {key: value for key, value in state.items() if key != "digest"}
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return json.dumps(content | {"digest": digest})


def unknown_setting(path: Path) -> None:
    state = json.loads(path.read_text())
    state["size"]["colour"] = "red"
    path.write_text(with_digest(state))


def senseless_size(path: Path) -> None:
    state = json.loads(path.read_text())
    state["size"]["latent_dim"] = 15
    path.write_text(with_digest(state))


def other_size(path: Path) -> None:
    state = json.loads(path.read_text())
    state["size"]["hidden_dim"] = 48
    path.write_text(with_digest(state))


DAMAGE = [
    ("model.safetensors", truncate, "SHA-256 differs.*Use another checkpoint"),
    ("model.safetensors", flip, "SHA-256 differs.*Use another checkpoint"),
    ("model.safetensors", Path.unlink, "cannot read.*Use another checkpoint"),
    ("trainer.safetensors", truncate, "SHA-256 differs.*Use another checkpoint"),
    ("trainer.safetensors", flip, "SHA-256 differs.*Use another checkpoint"),
    ("trainer.safetensors", Path.unlink, "cannot read.*Use another checkpoint"),
    ("state.json", altered, "was altered.*Use another checkpoint"),
    ("state.json", truncate, "cannot read.*Use another checkpoint"),
    ("state.json", lambda path: path.write_text("hello"), "cannot read.*Use another checkpoint"),
    ("state.json", lambda path: path.write_bytes(b"\xff\xfe\x00"), "cannot read.*Use another checkpoint"),
    ("state.json", lambda path: path.write_text("[1, 2]"), "not a checkpoint's state.*Use another"),
    ("state.json", lambda path: path.write_text('{"a": 1}'), "not a checkpoint's state.*Use another"),
    ("state.json", newer, "format 99, this version reads 3: use the worldmodel version that wrote it"),
    ("state.json", unknown_setting, "settings that this version does not know.*colour"),
    ("state.json", senseless_size, "latent_dim=15.*multiple"),
]


@pytest.mark.parametrize(("file", "damage", "message"), DAMAGE)
def test_damage_is_named_with_a_way_out(tmp_path, trainer, file, damage, message):
    good, bad = save(tmp_path, trainer, 100), save(tmp_path, trainer, 200)
    damage(bad / file)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_checkpoint(bad).trainer()
    line = str(caught.value)
    assert str(bad) in line
    assert "\n" not in line
    if "Use another checkpoint" in message:
        assert line.endswith(str(good))
        assert file in line
    load_checkpoint(good).trainer()


def test_weights_that_do_not_fit_the_size_are_named(tmp_path, trainer):
    path = save(tmp_path, trainer, 100)
    other_size(path / "state.json")
    with pytest.raises(CheckpointError, match="does not fit its own size") as caught:
        load_checkpoint(path)
    assert str(path / "model.safetensors") in str(caught.value)


def test_without_another_checkpoint_the_way_out_says_so(tmp_path, trainer):
    flip(save(tmp_path, trainer, 100) / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"no other checkpoint.*train again"):
        load_checkpoint(tmp_path)


def test_acting_needs_no_trainer_file(tmp_path, trainer):
    path = save(tmp_path, trainer, 100)
    (path / "trainer.safetensors").unlink()
    model = load_checkpoint(path).model
    assert torch.equal(model.q_heads[0].weight, trainer.averaged_model.q_heads[0].weight)
    assert not torch.equal(model.q_heads[0].weight, trainer.model.q_heads[0].weight)


def test_a_checkpoint_is_found_by_its_run_its_folder_or_itself(tmp_path, trainer):
    newest = [save(tmp_path / "checkpoints", trainer, step) for step in (100, 200)][-1]
    for path in (tmp_path, tmp_path / "checkpoints", newest, str(tmp_path)):
        assert find_checkpoint(path) == newest
    assert find_checkpoint(tmp_path / "checkpoints" / "step_000000100").name == "step_000000100"


def test_a_half_written_checkpoint_is_not_found(tmp_path, trainer):
    earlier = save(tmp_path, trainer, 100)
    for name in (".tmp-1-2-step_000000300", "step_000000400", "step_other"):
        (tmp_path / name).mkdir()
    (tmp_path / "step_other" / "state.json").write_text("{}")
    (tmp_path / ".tmp-1-2-step_000000300" / "state.json").write_text("{}")
    assert find_checkpoint(tmp_path) == earlier


def test_a_missing_folder_is_named_with_what_is_beside_it(tmp_path):
    (tmp_path / "walker").mkdir()
    with pytest.raises(CheckpointError, match=r"no such folder.*holds: walker"):
        find_checkpoint(tmp_path / "wlaker")
    with pytest.raises(CheckpointError, match="no such folder"):
        find_checkpoint(tmp_path / "a" / "b" / "c")


def test_a_foreign_folder_is_told_what_was_expected(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    for path in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(CheckpointError, match=r"expected step_\*/state\.json") as caught:
            load_checkpoint(path)
        assert str(path) in str(caught.value)


def test_nothing_is_pickled(tmp_path, trainer):
    path = save(tmp_path, trainer, 100)
    assert names(path) == ["model.safetensors", "state.json", "trainer.safetensors"]
    sources = list(Path(worldmodel.__file__).parent.rglob("*.py"))
    assert len(sources) > 20
    pickling = re.compile(r"\bpickle\b|torch\.(load|save)\(|allow_pickle=True|\bjoblib\b|\bdill\b")
    assert [str(source) for source in sources if pickling.search(source.read_text())] == []
