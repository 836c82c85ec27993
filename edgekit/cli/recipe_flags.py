"""Options that reach into a recipe's steps by a name of their own (``--latency-ms``), and the recipe they make."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import click

from edgekit.cli.configuration import Override, lay_over, overrides, source_of
from edgekit.cli.options import option
from edgekit.core.errors import RecipeError, UsageError

if TYPE_CHECKING:
    from edgekit.core.recipe import Recipe

__all__ = ["check_plan", "read_plan", "recipe_flags"]

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclasses.dataclass(frozen=True)
class _Flag:
    """One option that sets one field of every step of a kind.

    Args:
        field: The field; the option is called like it.
        kind: Kind of the steps.
        recipe: A recipe that has such a step.
        missing: What a recipe without one lacks.
    """

    field: str
    kind: str
    recipe: str
    missing: str

    @property
    def name(self) -> str:
        """As it is written."""
        return f"--{self.field.replace('_', '-')}"


_FLAGS = (
    _Flag("max_drop", "auto", "auto", "has no bound to keep"),
    _Flag("student", "distill", "distill", "trains no student"),
    _Flag("latency_ms", "prune", "prune", "prunes nothing"),
    _Flag("criterion", "prune", "prune50", "prunes nothing"),
)
_PLACES = ("device", "target")
"""Options that say where a prune step measures, and where stages are measured."""


def recipe_flags(function: Function) -> Function:
    """Give a command these options, and those of measuring stages."""
    for decorate in reversed(_options()):
        function = decorate(function)
    return function


def _options() -> list[Callable[[Any], Any]]:
    return [
        option("--max-drop", type=click.FloatRange(min=0, max=100, max_open=True), metavar="POINTS",
               help="For the recipe auto: how much worse than the float model the metric may be.  [default: 0.5]"),
        option("--student", metavar="SPEC",
               help="For a distill step: FILE.py:NAME, a function that returns the net to train; or width0.5, depth0.5."),
        option("--latency-ms", type=click.FloatRange(min=0, min_open=True), metavar="MS",
               help="For the recipe prune: the converted file shall run in at most this time on the device."),
        option("--criterion", metavar="NAME",
               help="For a prune step: what is removed first, e.g. l1, taylor, fpgm.  [default: l2]"),
        option("--measure/--no-measure", default=None,
               help="Measure the model after each step: metric, MACs, size and latency of its converted file."
               "  [default: where a step prunes or trains, or there are several]"),
        option("--device", metavar="PROFILE", help="Where that is measured, and a prune step's latency.  [default: host]"),
        option("--target", metavar="NAME", help="The converted file that is measured.  [default: onnx, else tflite]"),
    ]  # fmt: skip


def read_plan(ctx: click.Context, text: str) -> tuple[Recipe, dict[str, str]]:
    """The recipe with every setting laid over it, and where each differing part came from.

    Raises:
        RecipeError: It cannot be read, or a setting does not fit.
        UsageError: An option is for a step that the recipe does not have.
    """
    from edgekit import registry
    from edgekit.core.recipe import Recipe

    step_types = [runner.config for runner in registry.step_runners().values()]
    plan = Recipe.read(text, step_types=step_types)
    origins = {"recipe": source_of(ctx, "recipe")}
    changes = [*overrides(ctx), *_asked_for(ctx, plan)]
    if changes:
        data: Any = plan.model_dump(mode="json")
        for change in changes:
            data = lay_over(data, change)
            origins[change.path] = change.source
        plan = Recipe.from_data(
            data, source=f"recipe '{text}' with {', '.join(change.path for change in changes)}", step_types=step_types
        )
    return plan, origins


def check_plan(plan: Recipe) -> None:
    """Refuse what can be seen to be missing before the task is even loaded.

    Raises:
        RecipeError: A prune step has no goal.
    """
    for step in plan.steps:
        if step.kind == "prune" and getattr(step, "ratio", None) is None and getattr(step, "latency_ms", None) is None:
            raise RecipeError(
                f"Recipe '{plan.name}': the prune step has no goal. Say how much goes (prune50 takes half of the MACs),"
                " or how fast the converted file shall be (--latency-ms 3.0)."
            )


def _asked_for(ctx: click.Context, plan: Recipe) -> Iterator[Override]:
    """What the options change, step by step."""
    for flag in _FLAGS:
        value = ctx.params.get(flag.field)
        if value is None:
            continue
        places = _steps(plan, flag.kind)
        if not places:
            raise UsageError(
                f"{flag.name} is for {_whose(flag)}; '{plan.name}' {flag.missing}. Add --recipe {flag.recipe}, or leave it out."
            )
        yield from (Override(f"steps.{at}.{flag.field}", value, source_of(ctx, flag.field)) for at in places)
    places = _steps(plan, "prune")
    for name in _PLACES:
        value = ctx.params.get(name)
        if value is None:
            continue
        if not places and not _is_measured(ctx, plan):
            raise UsageError(
                f"--{name} says where the model is measured after each step; '{plan.name}' is not measured."
                " Add --measure, or leave it out."
            )
        yield from (Override(f"steps.{at}.{name}", value, source_of(ctx, name)) for at in places)


def _whose(flag: _Flag) -> str:
    return "the recipe auto" if flag.kind == "auto" else f"a {flag.kind} step"


def _is_measured(ctx: click.Context, plan: Recipe) -> bool:
    from edgekit.core.stages import is_worth_measuring

    asked: bool | None = ctx.params.get("measure")
    return is_worth_measuring(plan) if asked is None else asked


def _steps(plan: Recipe, kind: str) -> list[int]:
    return [at for at, step in enumerate(plan.steps) if step.kind == kind]
