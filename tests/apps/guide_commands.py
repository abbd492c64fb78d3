"""The commands and the Python of the pages, and how each is run in short."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
# Words that a line of a shell begins with; a block without any of them is a drawing.
SHELL = ("worldmodel", "torchrun", "make", "pip", "curl", "export", "ray")


@dataclass(frozen=True)
class Command:
    """One line for a shell: its words, without a comment."""

    page: Path
    line: str

    @property
    def words(self) -> list[str]:
        words = shlex.split(self.line, comments=True)
        return [word for word in words if not re.fullmatch(r"[A-Z_]+=\S*", word)]

    @property
    def is_ours(self) -> bool:
        return self.words[0] == "worldmodel"

    @property
    def sets_path(self) -> bool:
        """Whether modules of the folder can be imported."""
        return self.line.startswith("PYTHONPATH=. ")


@dataclass(frozen=True)
class Python:
    """A block of Python; a comment with a file's name makes it that module."""

    page: Path
    source: str

    @property
    def file(self) -> str | None:
        found = re.match(r"# (\w+\.py)\n", self.source)
        return found and found[1]


@dataclass(frozen=True)
class Drawing:
    """A block that nobody runs: a figure, a format's layout."""

    page: Path
    text: str


def blocks(page: Path) -> list[Command | Python | Drawing]:
    """What stands in the fences of a page, in order; each line of a shell on its own."""
    found: list[Command | Python | Drawing] = []
    for language, content in _BLOCK.findall(page.read_text()):
        lines = [line for line in content.splitlines() if line.strip()]
        is_shell = [line.removeprefix("PYTHONPATH=. ").split(" ")[0] in SHELL for line in lines]
        if language == "python":
            found.append(Python(page, content))
        elif any(is_shell):
            assert all(is_shell), f"{page.name} mixes commands with something else: {lines}"
            found += [Command(page, line) for line in lines]
        else:
            found.append(Drawing(page, content))
    return found


FEW = (
    "planner.num_candidates=12",
    "planner.num_elites=4",
    "planner.num_iterations=1",
    "planner.num_proposals=2",
)
ACT = ("episodes=1", "alarm=off", "video=false", *FEW)
NET = ("model.hidden_dim=16", "model.encoder_dim=16", "model.latent_dim=16")
ONLINE = (
    *("compile=false", "env_steps=600", "random_steps=20", "num_envs=1", "env.action_repeat=20"),
    *("training.update_ratio=0.3", "training.batch_size=8", "eval_episodes=1", *NET, *FEW),
)
OFFLINE = ("num_updates=3", "eval_every=3", "eval_episodes=1", "training.batch_size=8", *NET, *FEW)
# What makes a command short, in place of what stands in it.
SHORT = {
    "train": ONLINE,
    "train dataset=": OFFLINE,
    "train datasets=": OFFLINE,
    "train collector=": (*ONLINE, "num_workers=1"),
    "train num_updates=": ("num_updates=6",),  # goes on with a dataset
    "train resume=": ("env_steps=800", "eval_episodes=1"),
    "control": ACT,
    "control alarm=": ("episodes=1", "video=false", *FEW),
    "control realtime=": ACT,
    "control server=": ("episodes=1", "alarm=off", "video=false"),
    "control model=oracle": (
        "episodes=1",
        "alarm=off",
        "env.action_repeat=20",
        "planner.horizon=3",
        *FEW[:3],
    ),
    "imagine": ("episodes=2", "horizon=5", "decoder.updates=2", "decoder.images=20"),
    "surprise": ("episodes=2", "video=false", "violations=[teleport]"),
    "probe": ("episodes=4", "kinds=[linear]"),
    "collect": ("episodes=4", "num_envs=2"),
    "collect num_workers=": ("episodes=4", "num_envs=2", "num_workers=2"),
    "collect checkpoint=": ("episodes=2", "env.action_repeat=20", *FEW),
    "export": ("episodes=1",),
    "view": ("seconds=1", "port=0"),
    "serve": ("port=0", *FEW),
    "bench planners": ("planners=[mppi]", "budgets.lqr=[8x1x3]", "seeds=[0]", "num_workers=1"),
    "bench speed": (
        *("num_candidates=16", "horizon=2", "num_iterations=1", "scale_candidates=[16]", "scale_horizon=[2]"),
        *("scale_iterations=[1]", "scale_envs=[1]", "repeats=1", "planners=[cem]", "model.hidden_dim=16"),
    ),
    "bench robustness": (
        *("agents=[policy]", "disturbances=[action_delay]", "levels.action_delay=[3]", "episodes=1"),
        "num_workers=1",
    ),
    "bench learning": (
        "tasks=[cartpole-balance]",
        "seeds=[0]",
        "presets=[{preset}]",
        "episodes=1",
        "num_workers=1",
    ),
    "bench learning report=": ("tasks=[cartpole-balance]", "seeds=[0]", "presets=[{preset}]"),
    "bench goals": ("episodes=2", "agents=[planner,random]", *FEW),
    "bench realtime": ("periods_ms=[60]", "episodes=1", "checkpoint=pretrained/cartpole-swingup"),
    "bench scaling": (*("workers=[1]", "kinds=[collect]", "episodes=4", "num_envs=1", "repeats=1"),),
    "bench serve": ("clients=[1,2]", "seconds=0.2"),
}
PRESET = " ".join(("tiny", *ONLINE, "max_random_steps=20", "checkpoint_every=600", "eval_every=600"))


READERS_HAVE = ("ray_address=auto", "device=cuda")  # and tests do not


def shortened(words: list[str]) -> list[str]:
    """The words after `worldmodel`, with smaller numbers."""
    verb = next((key for key in (" ".join(words[:2]), words[0]) if key in SHORT), None)
    if verb is None:
        return [word.replace("return>500", "return>=0") for word in words]
    words = [word for word in words[len(verb.split()) :] if word not in READERS_HAVE]
    kinds = [key for key in SHORT if key.startswith(f"{verb} ") and " " not in key.removeprefix(f"{verb} ")]
    fitting = [key for key in kinds if any(word.startswith(key.removeprefix(f"{verb} ")) for word in words)]
    short = [word.replace("{preset}", f'"{PRESET}"') for word in SHORT[fitting[0] if fitting else verb]]
    keys = {word.partition("=")[0] for word in short}
    return verb.split() + [word for word in words if word.partition("=")[0] not in keys] + short
