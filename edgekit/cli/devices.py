"""``edgekit devices``: the profiles there are, what is at the other end of them, and new ones."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli.exit_codes import ExitCode
from edgekit.cli.groups import group
from edgekit.cli.options import once

if TYPE_CHECKING:
    from edgekit.cli.console import Terminal
    from edgekit.core.profile import DeviceProfile

__all__ = ["devices"]


def _names_with(_ctx: click.Context, _parameter: click.Parameter, begin: str) -> list[str]:
    """Names of profiles, for shells that complete."""
    from edgekit.device_tests.profiles import own_profile_names, profile_names

    return [name for name in (*own_profile_names(), *profile_names()) if name.startswith(begin)]


@group(
    default="list",
    examples=["devices", "devices raspberry jetson", "devices show raspberry-pi-5", "devices check host", "devices --json"],
)
def devices(terminal: Terminal) -> None:
    """List device profiles, show one, add a device of your own, see what is there.

    A profile names a device's hardware, how it is reached, its runtimes, and the budgets and tolerances of the verdict. Without a
    command, profiles are listed: all of them, or those that words such as "phone", "i8mm" or "jetson" tell.
    """
    _list(terminal, ())


@devices.add(name="list", examples=["devices list", "devices list phone i8mm", "devices list --ready --json"])
@click.argument("words", nargs=-1)
@once("--ready", is_flag=True, help="Only devices that could be tried from here.")
def list_profiles(terminal: Terminal, /, words: tuple[str, ...], ready: bool) -> None:
    """List the profiles, or those that hold all WORDS.

    A word that ends with .toml names a file whose devices are listed instead of the built-in ones and your own.
    """
    _list(terminal, words, ready=ready)


@devices.add(examples=["devices show raspberry-pi-4", "devices show host --json"])
@click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=_names_with)
def show(terminal: Terminal, /, names: tuple[str, ...]) -> None:
    """Show all that profiles say, with their sources.

    The last lines say whether the device could be tried from here, and how to attach it.

    NAME is a built-in profile, one of your own, or a .toml file.
    """
    from edgekit.cli.device_tables import draw_profiles

    profiles = _loaded(names)
    document = {"devices": [_document(profile) for profile in profiles]}
    terminal.finish(document, lambda console: draw_profiles(console, profiles))


@devices.add(examples=["devices add my-pi --ssh pi@raspberrypi.local", "devices add my-phone --adb 192.168.1.20:5555 --force"])
@click.argument("name")
@once("--ssh", metavar="USER@HOST[:PORT]", help="Reach it by SSH: a board, a gateway, a Mac.")
@once("--adb", metavar="SERIAL", help="Reach it by adb: an Android device, as 'adb devices' lists it.")
@once("--key", metavar="FILE", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="Private key for SSH.")
@once("--known-hosts", metavar="FILE", type=click.Path(path_type=Path, exists=True, dir_okay=False),
      help="Host keys to trust.  [default: ~/.ssh/known_hosts]")  # fmt: skip
@once("--folder", metavar="FOLDER", help="edgekit's folder on the device.")
@once("--python", metavar="PATH", help="Python on the device that has edgekit.  [default: python3, where it has]")
@once("--runner", metavar="FILE", type=click.Path(path_type=Path, exists=True, dir_okay=False),
      help="edgekit-runner built for the device.")  # fmt: skip
@once("--library", metavar="PATH", type=click.Path(path_type=Path, exists=True),
      help="The runtime's library for the device, or a folder of several.")  # fmt: skip
@once("--extends", metavar="BASE", default="", help="Profile to start from.  [default: the nearest built-in one]")
@once("--force", is_flag=True, help="Replace a profile of that name.")
def add(
    terminal: Terminal,
    /,
    name: str,
    ssh: str | None,
    adb: str | None,
    python: str | None,
    extends: str,
    force: bool,
    **files: Any,
) -> None:
    """Ask a device what it is, and write its profile.

    It is reached, and asked which runtimes it has. The profile extends the built-in one that is nearest. It lies in the folder of
    your own, where NAME finds it: $EDGEKIT_DEVICES, by default ~/.config/edgekit/devices. Where the device
    cannot be reached, nothing is written.
    """
    from edgekit.device_tests.enrolment import enrol

    transport, connection = _connection(ssh, adb, python, files)
    with terminal.working() as progress:
        made = enrol(
            name, transport=transport, connection=connection, python=python or "", base=extends, force=force, progress=progress
        )
    for note in made.notes:
        terminal.note(f"Note: {note}")
    terminal.note(f"Wrote {made.path}")
    document = {
        "name": name,
        "path": str(made.path),
        "extends": made.base,
        "facts": dict(made.facts),
        "notes": made.notes,
        "toml": made.text,
    }
    terminal.finish(document, lambda console: console.print(made.text.rstrip(), markup=False, soft_wrap=True))


@devices.add(examples=["devices check host", "devices check host --json"])
@click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=_names_with)
@click.pass_context
def check(ctx: click.Context, terminal: Terminal, /, names: tuple[str, ...]) -> None:
    """Connect to devices, say what is there and missing.

    Ends with 4 where a device could not be reached, and with 3 where one lacks what its profile promises.
    """
    from edgekit.cli.device_tables import draw_examinations
    from edgekit.device_tests.attachment import examine

    profiles = _loaded(names)
    found = []
    with terminal.working() as progress:
        for done, profile in enumerate(profiles):
            progress(f"asking {profile.name}", done, len(profiles))
            found.append(examine(profile))
        progress("asked", len(profiles), len(profiles))
    document = {"devices": [{**vars(one), "is_reached": not one.unreached} for one in found]}
    terminal.finish(document, lambda console: draw_examinations(console, found))
    if any(one.unreached for one in found):
        ctx.exit(ExitCode.DEVICE)
    ctx.exit(ExitCode.CONVERSION if any(one.missing for one in found) else ExitCode.OK)


@devices.add(examples=["devices schema", "devices schema --json"])
def schema(terminal: Terminal) -> None:
    """Print the JSON schema of profile files.

    Editors complete and check TOML by it.
    """
    from edgekit.device_tests.profiles.schema import file_schema

    found = file_schema()
    terminal.finish({"schema": found}, lambda console: console.print(json.dumps(found, indent=2), markup=False, soft_wrap=True))


def _list(terminal: Terminal, words: Sequence[str], *, ready: bool = False) -> None:
    from edgekit.cli.device_tables import draw_list
    from edgekit.core.errors import nearest
    from edgekit.device_tests.catalogue import Listed, listed, matching

    files = [word for word in words if word.endswith(".toml")]
    chosen = matching(listed(files), [word for word in words if word not in files])
    found: list[Listed] = [one for one in chosen if not ready or one.is_ready]
    document = {
        "devices": [{**_document(one.profile), "origin": one.origin, "obstacle": one.obstacle} for one in found if one.profile],
        "broken": [{"name": one.name, "origin": one.origin, "message": one.obstacle} for one in found if not one.profile],
    }
    if words and not chosen:
        said = " and ".join(f"'{word}'" for word in words)
        terminal.note(f"No profile holds {said}.{nearest(words[0], devices.commands)} All are listed by: edgekit devices")
    terminal.finish(document, lambda console: draw_list(console, found))


def _loaded(names: Sequence[str]) -> list[DeviceProfile]:
    import platform

    from edgekit.device_tests.profiles import load_profiles

    return [profile.on_system(platform.system()) for name in names for profile in load_profiles(name)]


def _document(profile: DeviceProfile) -> dict[str, Any]:
    from edgekit.device_tests.attachment import obstacle_of

    return {**profile.model_dump(mode="json"), "obstacle": obstacle_of(profile)}


def _connection(
    ssh: str | None, adb: str | None, python: str | None, files: dict[str, Path | str | None]
) -> tuple[str, dict[str, str | int | float | bool]]:
    """Transport and connection as a profile has them."""
    from edgekit.core.errors import UsageError
    from edgekit.device_tests.profiles.own import read_address

    if (ssh is None) == (adb is None):
        raise UsageError("Say how the device is reached, in one way: --ssh USER@HOST or --adb SERIAL.")
    given: dict[str, str | int | float | bool] = {
        name: str(value.absolute() if isinstance(value, Path) else value) for name, value in files.items() if value is not None
    }
    if adb is not None:
        for name in ("key", "known_hosts", "python"):
            if name in given or (name == "python" and python):
                raise UsageError(f"--{name.replace('_', '-')} goes with --ssh: an Android device has neither SSH nor Python.")
        return "adb", {"serial": adb, **given}
    return "ssh", {**read_address(ssh or ""), **given}
