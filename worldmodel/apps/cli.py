"""The console script: `worldmodel <verb> [key=value ...]`."""

import os
import signal
import sys
import textwrap
from collections.abc import Sequence
from types import FrameType

from worldmodel.apps.config import closest, compose_config, config_groups, config_text, to_dict
from worldmodel.apps.verbs import VERBS
from worldmodel.errors import RunError, WorldModelError
from worldmodel.files import FORBIDDEN, FULL, reason_of

USER_ERROR, INTERRUPTED = 2, 130
FAMILIES = {verb.partition(" ")[0] for verb in VERBS if " " in verb}  # `bench speed`, `data info`


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0, 2 for a user's mistake, 130 when interrupted."""
    # Ending a job politely must cost as little as Ctrl-C; and shells start background jobs deaf to both.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _dispatch(arguments)
    except KeyboardInterrupt:
        return INTERRUPTED
    except WorldModelError as error:
        return _refused(error)
    except OSError as error:
        if error.errno not in FULL | FORBIDDEN:
            raise
        where = f"{error.filename}: " if error.filename else ""
        print(f"worldmodel: {where}{reason_of(error)}", file=sys.stderr)
        return USER_ERROR
    except Exception as error:  # a mistyped word must not wait for torch: these are asked for last
        if isinstance(error, user_errors()):
            return _refused(error)
        raise


def _refused(error: Exception) -> int:
    print(f"worldmodel: {' '.join(str(error).split())}", file=sys.stderr)
    return USER_ERROR


def user_errors() -> tuple[type[Exception], ...]:
    """The errors that are a user's to mend."""
    from envs import EnvError
    from planners import PlannerError

    return WorldModelError, EnvError, PlannerError


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0
    name, overrides = arguments[0], arguments[1:]
    if name in FAMILIES and (not overrides or overrides[0] in ("-h", "--help")):
        print("\n".join(line for line in _overview().splitlines() if line.startswith(f"  {name} ")))
        return 0
    if name in FAMILIES:
        name, overrides = f"{name} {overrides[0]}", overrides[1:]
    if name == "--version":
        from importlib.metadata import version

        print(f"worldmodel {version('worldmodel')}")
        return 0
    if name not in VERBS:
        print(
            f"worldmodel: there is no verb {name!r}{closest(name, list(VERBS))}\n\n{_overview()}",
            file=sys.stderr,
        )
        return USER_ERROR
    if any(word in ("-h", "--help") for word in overrides):
        print(_help(name))
        return 0
    # What torchrun sets; other launchers' variables may be about something else.
    num_processes = int(os.environ.get("WORLD_SIZE", "1")) if "TORCHELASTIC_RUN_ID" in os.environ else 1
    if num_processes > 1 and not VERBS[name].runs_in_processes:
        together = ", ".join(verb for verb in VERBS if VERBS[verb].runs_in_processes)
        raise RunError(
            f"worldmodel {name} was started in {num_processes} processes, which would all do the same: start "
            f"it without torchrun (which is for {together})"
        )
    overrides = VERBS[name].overrides_of(overrides)
    implied = VERBS[name].implied(overrides)
    config = to_dict(compose_config(name.replace(" ", "_"), [*implied, *overrides]))
    given = {word.partition("=")[0] for word in overrides}
    VERBS[name].run(config, given)
    return 0


def _overview() -> str:
    lines = ["worldmodel <verb> [key=value ...]      worldmodel <verb> --help", ""]
    lines += [f"  {name:<16}{verb.summary}" for name, verb in VERBS.items()]
    return "\n".join(lines)


def _help(name: str) -> str:
    verb = VERBS[name]
    parts = [f"worldmodel {name} [key=value ...]", "", verb.summary, "", "Examples:"]
    parts += [f"  {example}" for example in verb.examples]
    if groups := config_groups(name.replace(" ", "_")):
        parts += ["", "Config groups (group=option):"]
        parts += [f"  {group:<12}{', '.join(options)}" for group, options in groups.items()]
    parts += [
        "",
        "Keys and their defaults:",
        textwrap.indent(config_text(name.replace(" ", "_")).rstrip(), "  "),
    ]
    return "\n".join(parts)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
