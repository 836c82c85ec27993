"""Where profiles lie: the shipped library, and a folder of the user's own."""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path

from edgekit.core.errors import ProfileError

__all__ = ["built_in_names", "find", "own_folder", "own_names", "path_of_name"]

LIBRARY = Path(__file__).parent
_HIDDEN = "_"
"""Files whose name begins so are bases for others, and no devices."""


def own_folder() -> Path:
    """The folder of the user's own profiles: ``$EDGEKIT_DEVICES``, else ``edgekit/devices`` below the XDG configuration folder.

    The latter is ``$XDG_CONFIG_HOME``, by default ``~/.config`` (XDG Base Directory Specification 0.8).
    """
    if chosen := os.environ.get("EDGEKIT_DEVICES"):
        return Path(chosen).expanduser()
    configuration = Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser()
    return configuration / "edgekit" / "devices"


def built_in_names() -> tuple[str, ...]:
    """Names of the shipped profiles."""
    return _names_in(LIBRARY)


def own_names() -> tuple[str, ...]:
    """Names of the profiles in :func:`own_folder`; one there hides the shipped one of the same name."""
    return _names_in(own_folder())


def path_of_name(name: str, *, besides: Path | None = None) -> Path | None:
    """The file of a profile by name, the user's own first; None where there is none.

    Args:
        name: Name, without ``.toml``.
        besides: This file does not count: it may extend the shipped one of its own name.
    """
    if not re.fullmatch(r"[\w.+-]+", name):  # no separators: a name never leaves the folders
        return None
    for folder in (own_folder(), LIBRARY):
        path = folder / f"{name}.toml"
        if path.is_file() and not (besides is not None and besides.exists() and path.samefile(besides)):
            return path
    return None


def find(source: str | Path) -> Path:
    """The file that a device is asked for by.

    Args:
        source: Name of a profile, or path of a ``.toml`` file.

    Raises:
        ProfileError: There is no such profile; gives the nearest names.
    """
    text = str(source)
    if isinstance(source, Path) or text.endswith(".toml") or "/" in text:
        path = Path(source)
        if not _exists(path):
            raise ProfileError(f"{path} does not exist.{_advice(path.stem)}")
        return path
    path_by_name = None if text.startswith(_HIDDEN) else path_of_name(text)
    if path_by_name is None:
        raise ProfileError(f"Unknown device '{text}'.{_advice(text)} For a profile elsewhere give the path of its .toml file.")
    return path_by_name


def nearest_names(word: str) -> tuple[str, ...]:
    """Up to three names of profiles that ``word`` may have meant.

    >>> nearest_names("pi-host"), nearest_names("")
    (('host',), ())
    """
    names = {*built_in_names(), *own_names()}
    wanted = _squeezed(word)
    holding = sorted(name for name in names if wanted and wanted in _squeezed(name))
    return tuple(dict.fromkeys([*difflib.get_close_matches(word, sorted(names), n=3, cutoff=0.6), *holding]))[:3]


def _advice(word: str) -> str:
    close = nearest_names(word)
    guess = f" Did you mean {' or '.join(repr(name) for name in close)}?" if close else ""
    count = len(built_in_names())
    return f"{guess} 'edgekit devices' lists the {count} built-in profiles and your own in {own_folder()}."


def _squeezed(word: str) -> str:
    return re.sub(r"[^a-z0-9]", "", word.lower())


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name too long, or with a null character
        return False


def _names_in(folder: Path) -> tuple[str, ...]:
    try:
        files = sorted(folder.glob("*.toml"))
    except OSError:
        return ()
    return tuple(file.stem for file in files if not file.stem.startswith((_HIDDEN, ".")))
