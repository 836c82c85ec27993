"""Options of runtimes: one form, every mistake named."""

from __future__ import annotations

import pytest

from edgekit import registry
from edgekit.core.entry_points import names
from edgekit.core.errors import UsageError
from edgekit.core.runtime_options import RuntimeOption, parse_settings, read_settings

OPTIONS = (
    RuntimeOption(name="provider", kind="text", default="cpu", values=("cpu", "cuda"), meaning="What computes."),
    RuntimeOption(name="level", kind="choice", default="all", values=("all", "none"), meaning="How far."),
    RuntimeOption(name="io_binding", kind="flag", default=False, meaning="Bound buffers."),
)


def test_defaults_are_completed() -> None:
    assert read_settings({"level": "none"}, OPTIONS, runtime="X") == {"provider": "cpu", "level": "none", "io_binding": False}
    assert read_settings(None, (), runtime="X") == {}


def test_text_may_be_what_only_the_runtime_can_judge() -> None:
    assert read_settings({"provider": "/lib/delegate.so"}, OPTIONS, runtime="X")["provider"] == "/lib/delegate.so"


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"providr": "cpu"}, "X has no option 'providr'; known: provider, level, io_binding. Did you mean 'provider'"),
        ({"level": "al"}, "option 'level' is 'al'; known: all, none. Did you mean 'all'"),
        ({"io_binding": "maybe"}, "'maybe'; it must be true or false"),
        ({"provider": 3}, "option 'provider' is 3; known: cpu, cuda"),
    ],
)
def test_mistakes_are_named(given: dict[str, object], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        read_settings(given, OPTIONS, runtime="X")


def test_words_of_a_command_line() -> None:
    assert parse_settings(["a=b=c", "flag=on", "other=FALSE"]) == {"a": "b=c", "flag": True, "other": False}
    with pytest.raises(UsageError, match="write NAME=VALUE"):
        parse_settings(["provider"])
    with pytest.raises(UsageError, match="given twice: cpu and cuda"):
        parse_settings(["provider=cpu", "provider=cuda"])


@pytest.mark.parametrize("name", names("runtimes"))
def test_every_runtime_lists_its_options(name: str) -> None:
    options = registry.runtime(name).options
    assert len({option.name for option in options}) == len(options)
    for option in options:
        assert option.meaning.endswith(".")
        assert option.kind == "flag" or option.default in (*option.values, *([""] if option.kind == "text" else []))
