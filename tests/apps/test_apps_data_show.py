"""`worldmodel data show`: the page, sheets and videos show what was recorded, and nothing of it is run."""

import html
import re

import imageio.v3 as iio
import numpy as np
import pytest
from PIL import Image

import envs
from worldmodel.apps.cli import main
from worldmodel.apps.config import quoted
from worldmodel.apps.datasets.pictures import (
    FRAME_SIZE,
    GAP,
    NUM_COLUMNS,
    TILE_WIDTH,
    contact_sheet,
    recorded_frames,
    redrawn_frames,
)
from worldmodel.apps.datasets.show import choose
from worldmodel.data import Episode, EpisodeDataset
from worldmodel.data.shard import write_shard
from worldmodel.errors import ConfigError

HOSTILE = "<script>alert('x')</script>\ud800"
NUM_STEPS = 20  # of an episode of the pendulum, at this action repeat
PENDULUM = ("task=pendulum-swingup", "env.action_repeat=50", "policy=colored")


def episode(total: float, num_steps: int = 5, *, pixels: tuple[int, ...] = (), **info) -> Episode:
    """Its return is `total`; the brightness of its pixels is the step times 10."""
    observation = {"state": np.zeros((num_steps + 1, 7), np.float32)}
    if pixels:
        steps = np.arange(num_steps + 1, dtype=np.uint8) * 10
        observation["pixels"] = np.broadcast_to(steps[:, None, None, None], (num_steps + 1, *pixels)).copy()
    return Episode(
        observation=observation,
        action=np.zeros((num_steps, 2), np.float32),
        reward=np.full(num_steps, total / num_steps, np.float32),
        terminated=True,
        truncated=False,
        info=info,
    )


def write(path, episodes, **info):
    dataset = EpisodeDataset(path, mode="a", info=info)
    for each in episodes:
        dataset.append(each)
    return path


def shown(path, output, *overrides: str) -> str:
    """The page of a dataset."""
    assert main(["data", "show", quoted("dataset", path), f"output={output}", *overrides]) == 0
    return (output / "index.html").read_text()


def text_of(page: str) -> str:
    return html.unescape(re.sub(r"<[^>]*>", " ", page))


@pytest.fixture(scope="module")
def pendulum(tmp_path_factory):
    """Two episodes with their physics states."""
    path = tmp_path_factory.mktemp("show") / "pendulum"
    command = ["collect", *PENDULUM, "physics_state=true", "episodes=2", f"dataset={path}"]
    assert main(command) == 0
    return path


def test_recorded_pixels_become_a_sheet_and_a_video(tmp_path, capsys):
    path = write(tmp_path / "a", [episode(1, 13, pixels=(3, 8, 16))], control_period_s=0.1)
    page = shown(path, tmp_path / "out", "every=4")
    assert f"the page: {tmp_path / 'out' / 'index.html'}" in capsys.readouterr().out
    sheet = np.asarray(Image.open(tmp_path / "out" / "episode-0.png"))
    # Steps 0, 4, 8, 12 and the last one.
    width, height = 5 * (TILE_WIDTH + GAP) + GAP, TILE_WIDTH // 2 + 2 * GAP
    assert sheet.shape == (height, width, 3)
    middles = sheet[height // 2, GAP + TILE_WIDTH // 2 :: TILE_WIDTH + GAP]
    np.testing.assert_array_equal(middles, np.repeat([[0], [40], [80], [120], [130]], 3, axis=1))
    video = iio.imread(tmp_path / "out" / "episode-0.mp4")
    assert video.shape == (14, FRAME_SIZE, 2 * FRAME_SIZE, 3)
    assert iio.immeta(tmp_path / "out" / "episode-0.mp4")["fps"] == pytest.approx(10)
    np.testing.assert_allclose(video[:, FRAME_SIZE // 2].mean((1, 2)), np.arange(14) * 10, atol=4)
    assert page.count("data:video/mp4;base64,") == 1
    assert page.count("data:image/png;base64,") == 2  # the plot and the sheet; one return has no histogram
    assert "The pictures are the recorded observations." in page


def test_physics_states_are_drawn_as_the_task_draws_them(pendulum, tmp_path):
    page = shown(pendulum, tmp_path / "out", "episodes=[1]")
    dataset = EpisodeDataset.open(pendulum)
    env = envs.make("pendulum-swingup", action_repeat=50, render_size=(FRAME_SIZE, FRAME_SIZE))
    other = envs.make("pendulum-swingup", action_repeat=50, render_size=(FRAME_SIZE, FRAME_SIZE))
    recorded = dataset.episode(1)
    frame = redrawn_frames(env, recorded)
    other.reset(seed=recorded.info["seed"])
    for step in range(NUM_STEPS):  # played again, not set
        np.testing.assert_array_equal(frame(step), other.render())
        other.step(recorded.action[step])
    np.testing.assert_array_equal(frame(NUM_STEPS), other.render())
    assert (frame(0) != frame(NUM_STEPS)).any()
    assert len(iio.imread(tmp_path / "out" / "episode-1.mp4")) == NUM_STEPS + 1
    num_rows = -(-(NUM_STEPS + 1) // NUM_COLUMNS)
    size = (NUM_COLUMNS * (TILE_WIDTH + GAP) + GAP, num_rows * (TILE_WIDTH + GAP) + GAP)
    assert Image.open(tmp_path / "out" / "episode-1.png").size == size
    assert not (tmp_path / "out" / "episode-0.png").exists()
    assert "drawn from the recorded states of pendulum-swingup" in page


def test_without_a_video_there_are_sheets_only(pendulum, tmp_path):
    page = shown(pendulum, tmp_path / "out", "video=false", "episodes=[-1]")
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"index.html", "episode-1.png"}
    assert "<video" not in page


def test_states_alone_are_plotted_and_the_page_says_what_would_show_more(tmp_path):
    path = write(tmp_path / "a", [episode(1), episode(3), episode(2)], task="reacher-easy")
    page = shown(path, tmp_path / "out")
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"index.html"}
    assert page.count("data:image/png;base64,") == 1 + 3
    text = text_of(page)
    assert "worldmodel collect task=reacher-easy env.observe=[state,pixels], or physics_state=true" in text
    assert re.search(r"episode 1\s+best\s+3\s+5\s+-\s+-\s+terminated", text)


def test_a_shard_that_appears_meanwhile_mixes_nothing_up(tmp_path, monkeypatch):
    path = write(tmp_path / "a", [episode(1), episode(3), episode(2)])
    opened = EpisodeDataset.open

    def recorded_meanwhile(*arguments, **options):
        dataset = opened(*arguments, **options)
        write_shard(path / "shards", "0" * 20 + "-1-earlier", [episode(100)])
        return dataset

    monkeypatch.setattr(EpisodeDataset, "open", recorded_meanwhile)
    text = text_of(shown(path, tmp_path / "out"))
    assert re.search(r"\b2\s+mean return", text)
    assert re.search(r"episode 1\s+best\s+3\s", text)


def test_nothing_that_a_dataset_says_is_html(tmp_path):
    episodes = [episode(1, policy=HOSTILE, note=HOSTILE), episode(2, policy="a & b")]
    path = write(tmp_path / "<b>", episodes, task=HOSTILE, **{HOSTILE: {"deep": HOSTILE}})
    page = shown(path, tmp_path / "out")
    assert "<script" not in page
    assert "<b>" not in re.sub(r"<b>[\d.,]+( MB)?</b>", "", page)
    assert page.count("&lt;script&gt;alert(&#x27;x&#x27;)") >= 5
    assert "a &amp; b" in page


def test_a_file_cannot_have_a_module_imported_but_a_user_can(pendulum, tmp_path, capsys):
    (recorded, *_) = EpisodeDataset.open(pendulum)
    path = write(tmp_path / "a", [recorded], task="toy_module:Point-v0")
    page = shown(path, tmp_path / "out")
    assert "names no task that may be drawn (toy_module:Point-v0); give task=TASK" in text_of(page)
    given = shown(path, tmp_path / "out", "task=pendulum_swingup", "video=false")
    assert "drawn from the recorded states of pendulum-swingup" in given


@pytest.mark.parametrize("info", [{"task": "cheetah-run"}, {"task": "no-such-task"}, {"task": 3}, {}])
def test_states_that_cannot_be_drawn_leave_the_plots(pendulum, tmp_path, info):
    (recorded, *_) = EpisodeDataset.open(pendulum)
    path = write(tmp_path / "a", [recorded], **info)
    page = shown(path, tmp_path / "out")
    assert "No pictures: " in page
    assert page.count("data:image/png;base64,") == 1


def test_what_a_dataset_says_of_its_time_is_checked(tmp_path):
    path = write(tmp_path / "a", [episode(1, pixels=(1, 4, 4))], control_period_s="soon", action_repeat=True)
    shown(path, tmp_path / "out")
    assert len(iio.imread(tmp_path / "out" / "episode-0.mp4")) == 6


def test_images_of_any_number_of_channels_are_shown():
    for num_channels, expected in ((1, [0, 0, 0]), (2, [0, 0, 0]), (3, [0, 1, 2]), (9, [0, 1, 2])):
        recorded = episode(1, pixels=(num_channels, 4, 4))
        recorded.observation["pixels"] = np.broadcast_to(
            np.arange(num_channels, dtype=np.uint8)[None, :, None, None], (6, num_channels, 4, 4)
        )
        image = recorded_frames(recorded)(2)
        assert image.shape == (4, 4, 3)
        np.testing.assert_array_equal(image[1, 1], expected)


def test_a_sheet_is_no_wider_than_its_tiles():
    tile = np.zeros((10, 20, 3), np.uint8)
    for count, (columns, rows) in {1: (1, 1), 6: (6, 1), 7: (6, 2), 13: (6, 3)}.items():
        size = (columns * (TILE_WIDTH + GAP) + GAP, rows * (TILE_WIDTH // 2 + GAP) + GAP)
        assert contact_sheet([tile] * count, ["0"] * count).size == size


def test_the_best_the_median_the_worst_and_the_first_are_chosen():
    assert choose([], [3.0, 9.0, -1.0, 5.0, 4.0]) == {1: "best", 4: "median", 2: "worst", 0: "first"}
    assert choose([], [9.0, 1.0]) == {0: "best, first", 1: "median, worst"}
    assert choose([], [2.0]) == {0: "the only one"}
    assert choose([-1, 0, 0], [1.0, 2.0, 3.0]) == {2: "", 0: ""}
    with pytest.raises(ConfigError, match=r"there is no episode 3; the dataset holds 0 to 2 .*-1 to -3"):
        choose([0, 3], [1.0, 2.0, 3.0])


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("episodes=[2]", "there is no episode 2; the dataset holds 0 to 1"),
        ("episodes=[-3]", "there is no episode -3"),
        ("episodes=[first]", "'first' is no episode; give numbers, such as [0,5]"),
        ("episodes=[true]", "True is no episode"),
        ("episodes=3", "must be a list"),
        ("every=-1", "every=-1: must be at least 0"),
        ("task=cheetah-run", "A physics state of this task is a finite vector of"),
        ("task=chetah-run", "did you mean cheetah-run"),
    ],
)
def test_what_makes_no_sense_is_refused(pendulum, tmp_path, refused, override, expected):
    output = tmp_path / "out"
    assert expected in refused("data", "show", f"dataset={pendulum}", f"output={output}", override)
    assert not output.exists()


def test_a_sheet_of_too_many_pictures_is_refused(tmp_path, refused):
    path = write(tmp_path / "a", [episode(1, 2500, pixels=(1, 2, 2))])
    line = refused("data", "show", f"dataset={path}", f"output={tmp_path / 'out'}", "every=1")
    assert "every=1: 2501 pictures of episode 0 are too many for one sheet; give every=3 or more" in line


def test_missing_and_empty_datasets_and_outputs_that_cannot_be_written_are_told(pendulum, tmp_path, refused):
    assert "there is no dataset at" in refused("data", "show", f"dataset={tmp_path}")
    EpisodeDataset(tmp_path / "empty", mode="a")
    assert "holds no episode yet" in refused("data", "show", f"dataset={tmp_path / 'empty'}")
    (tmp_path / "file").touch()
    output = f"output={tmp_path / 'file' / 'x'}"
    assert "cannot make output=" in refused("data", "show", f"dataset={pendulum}", output)


def test_logs_of_ones_own_are_not_sent_to_collect(tmp_path):
    for info, advice in (
        ({"task": "Nobodys-v0"}, "Episodes with images"),
        ({"task": "reacher-easy"}, "collect task"),
    ):
        path, output = tmp_path / info["task"], tmp_path / f"{info['task']}-page"
        EpisodeDataset(path, mode="a", info=info).append(episode(1, 3))
        assert main(["data", "show", f"dataset={path}", f"output={output}"]) == 0
        page = (output / "index.html").read_text()
        assert advice in page
        assert ("worldmodel collect" in page) == (info["task"] == "reacher-easy")


def test_the_page_has_a_place_of_its_own(pendulum, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["data", "show", f"dataset={pendulum}", "episodes=[0]", "video=false"]) == 0
    assert (tmp_path / "runs" / "show" / "pendulum" / "index.html").exists()
