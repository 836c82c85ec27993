"""Device profiles: one TOML file a device, or a lab of several; built-in ones and a user's own by name, others by path.

>>> load_profile("host").transport
'local'
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pydantic

from edgekit import registry
from edgekit.core.errors import ProfileError, nearest
from edgekit.core.model import explain
from edgekit.core.profile import DeviceProfile, ImpossibleFieldError
from edgekit.device_tests.profiles.folders import built_in_names, find, own_folder, own_names
from edgekit.device_tests.profiles.inheritance import Layer, chain, merged, parse_layers, problem, read_layers

__all__ = ["load_profile", "load_profiles", "own_folder", "own_profile_names", "parse_profiles", "profile_names"]


def profile_names() -> tuple[str, ...]:
    """Names of the built-in profiles."""
    return built_in_names()


def own_profile_names() -> tuple[str, ...]:
    """Names of the profiles in the user's own folder (:func:`own_folder`)."""
    return own_names()


def load_profile(source: str | Path) -> DeviceProfile:
    """Read the profile of one device.

    Args:
        source: Name of a built-in profile or one of the user's own, or path of a ``.toml`` file.

    Raises:
        ProfileError: There is no such profile; or a field is unknown, impossible, or names a runtime or transport that
            is not installed. The message gives file and line. Or the file holds several devices.
    """
    first, *others = load_profiles(source)
    if others:
        names = ", ".join(profile.name for profile in (first, *others))
        raise ProfileError(f"{find(source)} holds {len(others) + 1} devices ({names}), and one is asked for here.")
    return first


def load_profiles(source: str | Path) -> tuple[DeviceProfile, ...]:
    """Read the profiles of one or more devices.

    Args:
        source: Name of a profile, or path of a ``.toml`` file with one device or with ``[[devices]]`` tables.

    Raises:
        ProfileError: As for :func:`load_profile`; or two devices have the same name.
    """
    return _profiles(read_layers(find(source)))


def parse_profiles(text: str, path: Path) -> tuple[DeviceProfile, ...]:
    """Read the profiles in the text of a file that is not written yet.

    Args:
        text: The TOML.
        path: Where it would lie.

    Raises:
        ProfileError: As for :func:`load_profiles`.
    """
    return _profiles(parse_layers(text, path))


def _profiles(layers: Sequence[Layer]) -> tuple[DeviceProfile, ...]:
    profiles: list[DeviceProfile] = []
    for layer in layers:
        profile = _profile(layer)
        if any(profile.name == other.name for other in profiles):
            raise ProfileError(f"{layer.where(['name'])}: two devices are called '{profile.name}'; results are kept by name.")
        profiles.append(profile)
    return tuple(profiles)


def _profile(layer: Layer) -> DeviceProfile:
    layers = chain(layer)
    try:
        profile = DeviceProfile.model_validate(merged(layers))
    except pydantic.ValidationError as reason:
        raise _refusal(layers, reason) from reason
    _check_name(profile, layers)
    _check_parts(profile, layers)
    return profile


def _refusal(layers: Sequence[Layer], reason: pydantic.ValidationError) -> ProfileError:
    """What pydantic complains of first, as one message with file and line."""
    complaint = reason.errors()[0]
    place = [str(part) for part in complaint["loc"]]
    cause = complaint.get("ctx", {}).get("error")
    if isinstance(cause, ImpossibleFieldError):
        place = cause.field.split(".")
    return problem(layers, place, explain(reason, DeviceProfile), is_missing=complaint["type"] == "missing")


def _check_name(profile: DeviceProfile, layers: Sequence[Layer]) -> None:
    """Refuse a name that no command line could ask for, or that is not its file's."""
    if not re.fullmatch(r"\w[\w.+-]*", profile.name) or profile.name.endswith(".toml"):
        message = f"field 'name' is {profile.name!r}: use letters, digits, '-', '_', '.' and '+', and no '.toml' at the end."
        raise problem(layers, ["name"], message)
    layer = layers[0]
    if layer.path.parent == own_folder() and not layer.prefix and profile.name != layer.path.stem:
        message = f"field 'name' is '{profile.name}'; in {own_folder()} it must be its file's: '{layer.path.stem}'."
        raise problem(layers, ["name"], message)


def _check_parts(profile: DeviceProfile, layers: Sequence[Layer]) -> None:
    """Refuse a transport or runtime that nobody provides."""
    transports = registry.names("transports")
    if profile.transport not in transports:
        message = f"unknown transport '{profile.transport}'; known: {', '.join(transports)}."
        raise problem(layers, ["transport"], message + nearest(profile.transport, transports))
    if not profile.runtimes:
        raise problem(layers, ["runtimes"], "field 'runtimes' is empty: name at least one, such as runtimes.onnx.")
    runtimes = registry.names("runtimes")
    tables = [(("runtimes",), profile.runtimes), *((("systems", system), table) for system, table in profile.systems.items())]
    for place, table in tables:
        for target, choice in table.items():
            if ":" not in choice.runtime and choice.runtime not in runtimes:
                message = f"unknown runtime '{choice.runtime}' for target '{target}'; known: {', '.join(runtimes)}."
                raise problem(layers, [*place, target, "runtime"], message + nearest(choice.runtime, runtimes))
