"""dataset.json: what holds for all episodes, whoever writes first, and however many at once."""

import json

import pytest
from filelock import FileLock
from made_episodes import made_episode, write

from worldmodel.data import EpisodeDataset, description
from worldmodel.data.description import LOCK_FILE, SCHEMA_VERSION
from worldmodel.data.store import EpisodeStore
from worldmodel.errors import DatasetError


@pytest.fixture
def path(tmp_path):
    return tmp_path / "data" / "walk"


@pytest.fixture
def just_before_the_lock(monkeypatch):
    """Give it what another process does between the first look of a writer and its lock."""

    def arm(act):
        def late(path):
            monkeypatch.undo()
            act()
            return FileLock(path)

        monkeypatch.setattr(description, "FileLock", late)

    return arm


def is_armed():
    return description.FileLock is not FileLock


def first_schema(path):
    content = json.loads((path / "dataset.json").read_text()) | {"schema_version": 1}
    (path / "dataset.json").write_text(json.dumps(content))


def test_of_two_first_writers_the_first_sets_the_columns(path, just_before_the_lock):
    stores = [EpisodeStore(path, create=True) for _ in range(2)]
    just_before_the_lock(lambda: stores[0].write([made_episode(1, 3)]))
    with pytest.raises(DatasetError, match=r"extra.plan_mean is .* instead of absent"):
        stores[1].write([made_episode(2, 3, plan=True)])
    assert not is_armed()
    (episode,) = EpisodeDataset.open(path)
    assert episode.info["number"] == 1


def test_an_upgrade_keeps_the_columns_that_another_sets_meanwhile(path, just_before_the_lock):
    store = EpisodeStore(path, create=True)
    first_schema(path)
    just_before_the_lock(lambda: store.write([made_episode(1, 3)]))
    EpisodeStore(path, create=True)
    assert not is_armed()
    assert len(EpisodeDataset.open(path)) == 1
    first_schema(path)
    EpisodeStore(path, create=True)
    assert json.loads((path / "dataset.json").read_text())["schema_version"] == SCHEMA_VERSION


def test_making_a_dataset_keeps_one_that_another_makes_meanwhile(path, just_before_the_lock):
    just_before_the_lock(lambda: write(path, [1]))
    assert len(EpisodeDataset(path, mode="a")) == 1
    assert not is_armed()


def test_a_second_writer_must_have_the_same_columns(path):
    first, second = EpisodeDataset(path, mode="a"), EpisodeDataset(path, mode="a")
    first.append(made_episode(1, 3))
    with pytest.raises(DatasetError, match="does not fit the dataset"):
        second.append(made_episode(2, 3, pixels=True))


def test_whoever_holds_the_lock_for_long_is_told(path, monkeypatch):
    monkeypatch.setattr(description, "_LOCK_TIMEOUT_S", 0.1)
    EpisodeStore(path, create=True)
    with FileLock(path / LOCK_FILE), pytest.raises(DatasetError, match="another process holds"):
        write(path, [1])
    write(path, [1])
    with FileLock(path / LOCK_FILE):
        write(path, [2])  # needs none any more


def test_info_that_says_something_else_is_refused(path):
    EpisodeDataset(path, mode="a", info={"task": "walker-walk", "versions": {"mujoco": "3.11.0"}})
    reopened = EpisodeDataset(path, mode="a", info={"task": "walker-walk", "versions": {"mujoco": "3.17.0"}})
    assert reopened.info == {"task": "walker-walk", "versions": {"mujoco": "3.11.0"}}
    with pytest.raises(DatasetError, match="task='walker-walk', not 'walker-run'"):
        EpisodeDataset(path, mode="a", info={"task": "walker-run"})
    with pytest.raises(DatasetError, match="plain JSON"):
        EpisodeDataset(path, mode="a", info={"when": object()})
    with pytest.raises(DatasetError, match="plain JSON"):
        EpisodeDataset(path.parent / "other", mode="a", info={"when": object()})
    assert not (path.parent / "other").exists()


def test_info_is_added_until_there_are_episodes(path):
    opened_before = EpisodeDataset(path, mode="a")
    added = {"task": "walker-walk", "versions": {"mujoco": "3.11.0"}}
    assert EpisodeDataset(path, mode="a", info=added).info == added
    with pytest.raises(DatasetError, match="task='walker-walk', not 'walker-run'"):
        EpisodeDataset(path, mode="a", info={"task": "walker-run"})
    opened_before.append(made_episode(1, 3))
    assert EpisodeDataset.open(path).info == opened_before.info == added
    with pytest.raises(
        DatasetError, match=r"does not say their seed: if it is 1, add \"seed\": 1 to 'info' in "
    ):
        EpisodeDataset(path, mode="a", info={"seed": 1})
    later = EpisodeDataset(path, mode="a", info={"task": "walker-walk", "spaces": {"action": "Box"}})
    assert later.info == added  # of what says how the data came about, the first stays


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (lambda path: EpisodeDataset(path, mode="a", info={"task": "b"}), "task='b', not 'a'"),
        (lambda path: write(path, [1]), "does not say their task"),
    ],
)
def test_info_is_compared_with_what_another_writes_meanwhile(path, just_before_the_lock, what, message):
    EpisodeDataset(path, mode="a")
    just_before_the_lock(lambda: what(path))
    with pytest.raises(DatasetError, match=message):
        EpisodeDataset(path, mode="a", info={"task": "a"})
    assert not is_armed()
    assert json.loads((path / "dataset.json").read_text())["info"].get("task") in ("b", None)


def test_newer_schema_is_refused(path):
    write(path, [1])
    description = json.loads((path / "dataset.json").read_text())
    (path / "dataset.json").write_text(json.dumps({**description, "schema_version": SCHEMA_VERSION + 1}))
    with pytest.raises(DatasetError, match=rf"schema version {SCHEMA_VERSION + 1}.*install a newer one"):
        EpisodeDataset.open(path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"schema_version": 1}',
        '{"schema_version": 1, "info": {}, "columns": {"../../evil": {"dtype": "float32", "shape": []}}}',
        '{"schema_version": 1, "info": {}, "columns": {"action": {"dtype": "object", "shape": []}}}',
    ],
)
def test_garbled_description_is_refused(path, text):
    write(path, [1])
    (path / "dataset.json").write_text(text)
    with pytest.raises(DatasetError, match=r"cannot read .*dataset\.json"):
        EpisodeDataset.open(path)
