"""Which MuJoCo runs with which dm_control.

dm_control reads MuJoCo's structs by field name but declares only a lower bound, so pip happily installs
pairs whose every `suite.load` fails (dm_control issues 430, 500, 525; mujoco issue 1883). The check reads
package metadata only, so that it can run before the import that would fail.
"""

from importlib import metadata

from envs.errors import IncompatibleVersionsError

# dm_control 1.0.x -> the MuJoCo 3.x it was released for (its release notes).
_MUJOCO_MINOR_OF_DM_CONTROL = {41: 8, 43: 10, 44: 11, 45: 12, 46: 13, 47: 14, 48: 15, 49: 16, 50: 17}
_NEWEST_KNOWN = max(_MUJOCO_MINOR_OF_DM_CONTROL)


def _release(version: str) -> tuple[int, ...]:
    """Leading integers of a version: '1.0.50rc1' -> (1, 0)."""
    numbers: list[int] = []
    for part in version.split("."):
        if not part.isdigit():
            break
        numbers.append(int(part))
    return tuple(numbers)


def check_pair(mujoco_version: str, dm_control_version: str) -> None:
    """Raise if this pair is known or expected to break; a pair this table cannot know passes.

    Raises:
        IncompatibleVersionsError: names both versions and the pair to install.
    """
    mujoco, dm_control = _release(mujoco_version), _release(dm_control_version)
    if len(mujoco) < 2 or len(dm_control) < 3 or dm_control[:2] != (1, 0):
        return
    patch = dm_control[2]
    needs_older_mujoco = patch <= _NEWEST_KNOWN and mujoco[0] >= 4
    expected = _MUJOCO_MINOR_OF_DM_CONTROL.get(patch)
    if needs_older_mujoco or (expected is not None and mujoco[:2] != (3, expected)):
        raise IncompatibleVersionsError(
            f"mujoco {mujoco_version} and dm-control {dm_control_version} do not run together: "
            + _way_out(dm_control_version)
        )


def _way_out(dm_control_version: str) -> str:
    release = _release(dm_control_version)
    expected = _MUJOCO_MINOR_OF_DM_CONTROL.get(release[2]) if len(release) > 2 else None
    newest_minor = _MUJOCO_MINOR_OF_DM_CONTROL[_NEWEST_KNOWN]
    newest = f"pip install 'mujoco==3.{newest_minor}.*' 'dm-control==1.0.{_NEWEST_KNOWN}'"
    if expected is None or expected == newest_minor:
        return f"each dm-control release needs its own MuJoCo; the newest pair known to run is {newest}"
    return (
        f"dm-control {dm_control_version} needs mujoco 3.{expected}, so run "
        f"pip install 'mujoco==3.{expected}.*', or take the newest pair: {newest}"
    )


def installed_pair() -> tuple[str, str]:
    """Versions of MuJoCo and dm_control, from package metadata.

    Raises:
        IncompatibleVersionsError: one of them is not installed.
    """
    versions = []
    for package in ("mujoco", "dm-control"):
        try:
            versions.append(metadata.version(package))
        except metadata.PackageNotFoundError as error:
            raise IncompatibleVersionsError(
                f"{package} is not installed, and dm_control tasks need it: pip install {package}"
            ) from error
    return versions[0], versions[1]


def check_installed_pair() -> None:
    """`check_pair` for what is installed here."""
    check_pair(*installed_pair())


def pair_failure(error: Exception) -> IncompatibleVersionsError:
    """The error to raise where the pair passed the check, but dm_control failed to import or load."""
    mujoco_version, dm_control_version = installed_pair()
    return IncompatibleVersionsError(
        f"dm_control failed with {type(error).__name__}: {error}. If it names a missing MuJoCo field: "
        f"installed are mujoco {mujoco_version} and dm-control {dm_control_version}, and "
        + _way_out(dm_control_version)
    )
