"""Reads mutated files of one kind in a process of its own, and prints what became of each as JSON.

    python tests/security/hostile_files.py KIND FOLDER COUNT SEED

FOLDER is empty. A mutated file is read as a user would, or refused as a user's mistake is. Anything else is a
fault: another error (a traceback, for a user), code that ran, a file that was opened beside what was read, a
process started, or more memory than the limit.
"""

import json
import os
import resource
import shutil
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "data"), str(TESTS / "apps")]

import mutation  # noqa: E402

MEMORY_BYTES = 3 * 2**30  # of address space beyond what is taken when the first file is read
FORBIDDEN = (
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "subprocess.Popen",
    "pickle.find_class",
    "socket.connect",
)


@dataclass(frozen=True)
class Victim:
    """What is mutated, and what reads it.

    - `sound`: the files that may be wrong, below `folder`, and how each is mutated.
    - `read`: reads all of it, after one file was changed.
    - `mend`: what an attacker does so that a changed file is looked at: digests, checksums.
    """

    folder: Path
    sound: dict[Path, mutation.Mutate]
    read: Callable[[], object]
    mend: Callable[[np.random.Generator], None] = lambda rng: None


def checkpoint(folder: Path) -> Victim:
    """A downloaded checkpoint: opened, planned with, and gone on from."""
    import torch
    import toy_tasks

    from worldmodel.apps.build import build_env
    from worldmodel.apps.cli import main
    from worldmodel.apps.trained import open_run
    from worldmodel.training import find_checkpoint

    torch.set_num_threads(1)
    settings = [*toy_tasks.TINY_TRAINING, "env_steps=40", "eval_every=1000", f"run_dir={folder / 'run'}"]
    assert main(["train", "task=cartpole-balance", "env.action_repeat=8", *settings]) == 0
    path = find_checkpoint(folder / "run")
    state = {"state": np.zeros((1, 5), np.float32)}

    def read() -> None:
        run = open_run(path)
        build_env(run.task, run.config["env"], num_envs=1, seed=0).close()
        run.planning_agent().act(state)
        run.checkpoint.trainer()

    def mend(rng: np.random.Generator) -> None:
        if rng.integers(8):
            file = path / "state.json"
            file.write_bytes(mutation.resealed(file.read_bytes(), path))

    return Victim(
        path,
        {
            path / "state.json": mutation.mutated_json,
            path / "model.safetensors": mutation.mutated_safetensors,
            path / "trainer.safetensors": mutation.mutated_safetensors,
        },
        read,
        mend,
    )


def resumed(folder: Path) -> Victim:
    """A run folder: its configuration, and what its checkpoint keeps to go on."""
    from worldmodel.apps.config import compose_config, to_dict
    from worldmodel.apps.run import resumed_config
    from worldmodel.apps.train import make_training

    victim = checkpoint(folder)
    run = folder / "run"
    given = {"run_dir", "resume"}
    config = to_dict(compose_config("train", [f"run_dir='{run}'", "resume=true"]))

    def read() -> None:
        training = make_training(run, resumed_config(run, config, given))
        try:
            training.advance()
        finally:
            training.close()

    files = {run / "config.json": mutation.mutated_json, victim.folder / "state.json": mutation.mutated_json}
    return Victim(run, files, read, victim.mend)


def _dataset(folder: Path, **kinds: mutation.Mutate) -> Victim:
    """A dataset of one shard of each kind; `kinds`: how files are mutated, by the end of their name."""
    from made_episodes import made_episode

    from worldmodel.data import EpisodeDataset
    from worldmodel.data.store import EpisodeStore

    path = folder / "data"
    store = EpisodeStore(path, create=True, info={"task": "cartpole-balance", "action_repeat": 2})
    for number, compresses in ((1, False), (3, True)):
        episodes = [made_episode(number + i, 3 + i, pixels=True, plan=True) for i in range(2)]
        store.write(episodes, compresses_pixels=compresses)

    def read() -> None:
        for in_memory in (True, False):
            dataset = EpisodeDataset.open(path, in_memory=in_memory)
            for _ in dataset:
                pass
            if len(dataset):
                dataset.sample(4, 3, np.random.default_rng(0))
            dataset.returns()
        list(EpisodeStore(path).episode_infos())

    def mend(rng: np.random.Generator) -> None:
        if rng.integers(8):  # without checksums, as in the first version of the schema
            for file in path.glob("shards/*/shard.json"):
                content = json.loads(file.read_bytes()) if file.read_bytes()[:1] == b"{" else None
                if isinstance(content, dict) and isinstance(content.get("checksums"), dict):
                    file.write_text(json.dumps(content | {"checksums": {}}))

    files = {
        file: mutate
        for end, mutate in kinds.items()
        for file in sorted(path.rglob("*"))
        if file.name.endswith(end.replace("_", "."))
    }
    return Victim(path, files, read, _if_json(mend))


def _if_json(mend: Callable[[np.random.Generator], None]) -> Callable[[np.random.Generator], None]:
    def mended(rng: np.random.Generator) -> None:
        try:
            mend(rng)
        except (ValueError, RecursionError):
            return

    return mended


def manifest(folder: Path) -> Victim:
    """dataset.json and the descriptions of shards."""
    return _dataset(folder, _json=mutation.mutated_json)


def shard(folder: Path) -> Victim:
    """The numbers of shards, plain and compressed."""
    return _dataset(
        folder, _npy=mutation.mutated_npy, _offsets=mutation.mutated_npy, _zlib=mutation.mutated_bytes
    )


def config(folder: Path) -> Victim:
    """Words of the command line: wrong values, and wrong characters."""
    from worldmodel.apps.config import compose_config, config_groups, keys_of, to_dict

    file = folder / "words.json"
    verbs = ("train", "control", "collect", "serve", "data_import")
    words = [f"{verb} {key}" for verb in verbs for key in (*keys_of(verb), *config_groups(verb))]
    file.write_text(json.dumps(words))

    def mutate(rng: np.random.Generator, content: bytes) -> bytes:
        verb, key = json.loads(content)[rng.integers(len(words))].split()
        value = str(mutation.ODD[rng.integers(len(mutation.ODD))])
        word = f"{key}={value}"
        if rng.integers(3) == 0:
            word = mutation.mutated_bytes(rng, word.encode()).decode("utf-8", "replace")
        return json.dumps([verb, word]).encode()

    def read() -> None:
        content = json.loads(file.read_bytes())
        if isinstance(content[0], str) and len(content) == 2:
            to_dict(compose_config(content[0], [content[1]]))

    return Victim(folder, {file: mutate}, read)


def mjcf(folder: Path) -> Victim:
    """A task's model: loaded, reset and stepped."""
    from envs.mjcf_env import MjcfEnv
    from envs.tasks import OWN_TASKS

    files = {}
    tasks: dict[Path, Any] = {}
    for name in ("tworoom", "push"):
        kind = type(OWN_TASKS[name])
        file = folder / f"{name}.xml"
        shutil.copy(OWN_TASKS[name].path, file)
        tasks[file] = type(kind.__name__, (kind,), {"path": property(lambda self, file=file: file)})()
        files[file] = mutation.mutated_xml

    def read() -> None:
        for task in tasks.values():
            env = MjcfEnv(task)
            env.reset(seed=0)
            with suppress(FloatingPointError):  # which `TaskEnv` tells of
                env.step(np.zeros(env.action_space.shape))

    return Victim(folder, files, read)


VICTIMS = {
    victim.__name__: victim for victim in (checkpoint, resumed, manifest, shard, config, mjcf)
}  # fmt: skip


class Guard:
    """Notes what no file may cause, while it is on."""

    def __init__(self) -> None:
        self.is_on, self.found = False, list[str]()
        sys.addaudithook(self._see)

    def _see(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.is_on:
            return
        text = repr(arguments[0])[:300] if arguments else ""
        runs_code = event in ("exec", "compile") and (
            "PWNED" in repr(arguments) and "literal" not in _callers()
        )
        if event in FORBIDDEN or runs_code or (event == "open" and mutation.SECRET in text):
            self.found.append(f"{event} {text}")

    @contextmanager
    def on(self) -> Iterator[None]:
        """While a file is read."""
        self.is_on, self.found = True, []
        try:
            yield
        finally:
            self.is_on = False


def _callers() -> str:
    """Names of the functions that are running: `ast.literal_eval` compiles without running."""
    frame, names = sys._getframe(2), []
    while frame is not None:
        names.append(frame.f_code.co_name)
        frame = frame.f_back
    return " ".join(names)


def address_space() -> int:
    """Bytes that this process has mapped."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")


def attack(victim: Victim, count: int, seed: int) -> dict[str, Any]:
    """Read so many mutants; returns what became of them, and the faults."""
    from worldmodel.apps.cli import user_errors

    user_errors()  # imports torch, of which a CUDA build maps several GB: before memory is limited
    warnings.simplefilter("ignore")
    rng, outcomes, faults = np.random.default_rng(seed), Counter[str](), list[str]()
    for name in (mutation.SECRET, f"{mutation.SECRET}.stl", f"{mutation.SECRET}.png"):
        (victim.folder.parent / name).write_bytes(b"not yours")
    # A size is part of a file's facts: what it was before is put back as it was.
    victim.read()  # it is sound, and everything is imported
    whole = {path: path.read_bytes() for path in victim.folder.rglob("*") if path.is_file()}
    limit = address_space() + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    guard, files = Guard(), list(victim.sound)
    for number in range(count):
        path = files[rng.integers(len(files))]
        path.write_bytes(victim.sound[path](rng, whole[path]))
        victim.mend(rng)
        (victim.folder.parent / "running").write_bytes(
            path.read_bytes()
        )  # to look at, should it not come back
        with guard.on():
            try:
                victim.read()
                outcome = "read"
            except user_errors() as error:
                outcome = "refused"
                if len(str(error)) < 10:
                    faults.append(f"{number} {path.name}: says only {error!r}")
            except BaseException as error:
                outcome = type(error).__name__
                place = traceback.extract_tb(error.__traceback__)
                ours = [f for f in place if "site-packages" not in f.filename and "hostile" not in f.filename]
                where = f"{ours[-1].filename}:{ours[-1].lineno} {ours[-1].line}" if ours else ""
                faults.append(f"{number} {path.name}: {outcome}: {str(error)[:300]} at {where}")
        faults += [f"{number} {path.name}: caused {event}" for event in guard.found]
        outcomes[outcome] += 1
        for other, content in whole.items():
            if other in files or other.suffix == ".json":
                other.write_bytes(content)
    if any(place.exists() for place in (Path("PWNED"), victim.folder / "PWNED")):
        faults.append("code ran: PWNED is there")
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"outcomes": outcomes, "faults": faults, "grown_mb": (after - before) / 1024}


def main() -> None:
    """One kind, as the command line says."""
    kind, folder, count, seed = sys.argv[1:]
    work = Path(folder) / "work"
    work.mkdir()
    os.chdir(folder)
    found = attack(VICTIMS[kind](work), int(count), int(seed))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
