"""Changing an exported program without touching the one that was given.

::

    edit = ProgramEdit(program)
    for node in edit.find("aten.adaptive_max_pool2d.default"):
        edit.replace(node, build)          # build(*arguments): the same function in other operators
    program = edit.finish()

Names of all other nodes stay, since the quantization contract and the provenance of tensors refer to them.
"""

from __future__ import annotations

import copy
import dataclasses
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from edgekit.core.program import register_operators

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram
    from torch.fx import Graph, GraphModule, Node

__all__ = ["Front", "ProgramEdit", "copied_graph", "rebuilt"]


class Front(Protocol):
    """What is computed from an input in a new form; see :meth:`ProgramEdit.feed`."""

    constants: list[torch.Tensor]
    """Handed to :meth:`build` after the input."""

    def build(self, raw: torch.Tensor, *constants: torch.Tensor) -> torch.Tensor:
        """The input in its old form."""
        ...


class ProgramEdit:
    """A copy of a program's graph that can be changed, and made a program again.

    Args:
        program: Left as it is.
    """

    def __init__(self, program: ExportedProgram) -> None:
        self._program = program
        self.module = copied_graph(program)
        self.graph = self.module.graph
        self.graph.eliminate_dead_code()  # a part of a tuple that nothing reads would look as if it were needed
        self._state: dict[str, Any] = dict(program.state_dict)
        self._signature = copy.deepcopy(program.graph_signature)
        self._examples: dict[str, torch.Tensor] = {}

    def find(self, *operators: str) -> Iterator[Node]:
        """Nodes that call one of some operators (``"aten.add.Tensor"``), in order; the graph may be changed meanwhile."""
        for node in list(self.graph.nodes):
            if node.op == "call_function" and str(node.target) in operators:
                yield node

    def constants(self, *kinds: Any) -> Iterator[tuple[Node, torch.Tensor]]:
        """Placeholders of some kinds (``InputKind``) and the tensors they stand for."""
        values = {**self._program.constants, **self._state}
        nodes = {node.name: node for node in self.graph.nodes if node.op == "placeholder"}
        for spec in self._signature.input_specs:
            if spec.kind in kinds and spec.target in values and spec.arg.name in nodes:
                yield nodes[spec.arg.name], values[spec.target]

    def constant(self, value: torch.Tensor, *, name: str) -> Node:
        """A node that stands for a constant tensor; it becomes a buffer of the program."""
        from torch.export.graph_signature import InputKind, InputSpec, TensorArgument

        specs = self._signature.input_specs
        placeholders = [node for node in self.graph.nodes if node.op == "placeholder"]
        taken = {*self._state, *(node.name for node in self.graph.nodes)}
        key = next(key for key in (f"{name}_{number}" for number in range(len(taken) + 1)) if key not in taken)
        at = next((index for index, spec in enumerate(specs) if spec.kind is InputKind.USER_INPUT), len(specs))
        before = placeholders[at] if at < len(placeholders) else next(n for n in self.graph.nodes if n.op != "placeholder")
        with self.graph.inserting_before(before):
            node = self.graph.placeholder(key)
        node.name = key
        node.meta["val"] = self._fake(value)
        specs.insert(at, InputSpec(InputKind.BUFFER, TensorArgument(node.name), key, persistent=True))
        self._state[key] = value.detach().clone()
        return node

    def replace(self, node: Node, build: Callable[..., Any]) -> None:
        """Put what ``build`` computes in place of a node.

        Args:
            node: A call; its value is a tensor or a tuple of tensors.
            build: Called with the node's arguments (tensors for nodes); written with torch operators only. Its result has
                the shapes and dtypes of the node's.
        """
        traced, sources = self._trace(build, node.args, node.kwargs)
        result, values = self._insert(node, traced, sources)
        self._hand_over(node, result, values)

    def compute(self, at: Node, build: Callable[..., Any], *arguments: Any) -> Any:
        """Put what ``build`` computes in front of a node, without anything reading it yet.

        Args:
            at: The node in front of which it is computed, and whose place in the user's model it gets.
            build: Called with tensors for nodes; written with torch operators only.
            arguments: Nodes, and anything else ``build`` takes.

        Returns:
            Nodes, in the lists and tuples in which ``build`` returns tensors.
        """
        import torch

        traced, sources = self._trace(build, arguments, {})
        result, values = self._insert(at, traced, sources)
        return torch.fx.node.map_arg(result, lambda node: values[node])

    def value_of(self, node: Node) -> torch.Tensor | None:
        """The value of a node that depends on no input: a parameter, a buffer, or what is computed from constants alone."""
        import torch

        if node.op == "placeholder":
            spec = next((spec for spec in self._signature.input_specs if spec.arg.name == node.name), None)
            key = spec.target if spec is not None else None
            value = self._state.get(key, self._program.constants.get(key)) if key is not None else None
            return value.detach() if isinstance(value, torch.Tensor) else None
        if node.op != "call_function" or _changes(node) or any(map(_changes, node.users)):
            return None
        known = {source: self.value_of(source) for source in node.all_input_nodes}
        if any(value is None for value in known.values()):
            return None
        args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), lambda source: known[source])
        target: Any = node.target
        with torch.no_grad():
            result = target(*args, **kwargs)
        return result if isinstance(result, torch.Tensor) else None

    def results(self) -> list[Node]:
        """Nodes the program returns."""
        (output,) = (node for node in self.graph.nodes if node.op == "output")
        return list(output.all_input_nodes)

    def feed(self, name: str, given: torch.Tensor, front: Front) -> None:
        """Let an input have another form, and compute from it what the program reads now.

        Args:
            name: The input's node.
            given: Example of the new form.
            front: Called with the input and its constants, written with torch operators only; its result has the shape and
                dtype the input had.
        """
        from torch.fx.experimental.proxy_tensor import make_fx

        node = next(node for node in self.graph.nodes if node.op == "placeholder" and node.name == name)
        sources = [node, *(self.constant(value, name="preprocessing") for value in front.constants)]
        users, fake = list(node.users), self._fake(given)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            traced = make_fx(front.build, pre_dispatch=True)(fake, *(source.meta["val"] for source in sources[1:]))
        values: dict[Any, Any] = dict(zip((n for n in traced.graph.nodes if n.op == "placeholder"), sources, strict=True))
        first = next(node for node in self.graph.nodes if node.op != "placeholder")
        with self.graph.inserting_before(first):
            for made in traced.graph.nodes:
                if made.op == "call_function":
                    values[made] = new = self.graph.node_copy(made, lambda source: values[source])
                    new.meta = {"val": made.meta.get("val")}
        (result,) = next(n for n in traced.graph.nodes if n.op == "output").args
        for user in users:
            user.replace_input_with(node, values[result])
        node.meta = {**node.meta, "val": fake}
        self._examples[name] = given

    def finish(self) -> ExportedProgram:
        """The changed program; nodes nothing reads are left out."""
        self.graph.eliminate_dead_code()
        examples = _with_examples(self._program, self._examples)
        return rebuilt(self._program, self.module, self._state, signature=self._signature, example_inputs=examples)

    def _insert(self, at: Node, traced: GraphModule, sources: list[Node]) -> tuple[Any, dict[Any, Any]]:
        """The traced result, and what stands for each traced node."""
        import torch

        values: dict[Any, Any] = dict(zip((n for n in traced.graph.nodes if n.op == "placeholder"), sources, strict=True))
        with self.graph.inserting_before(at):
            for made in traced.graph.nodes:
                if made.op == "get_attr":
                    values[made] = self.constant(getattr(traced, made.target), name="rewritten")
                elif made.op == "call_function":
                    values[made] = new = self.graph.node_copy(made, lambda source: values[source])
                    new.meta = {**_origin(at), "val": torch.utils._pytree.tree_map(self._in_mode, made.meta.get("val"))}
        (result,) = next(n for n in traced.graph.nodes if n.op == "output").args
        return result, values

    def _trace(self, build: Callable[..., Any], args: Any, kwargs: Any) -> tuple[GraphModule, list[Node]]:
        import torch
        from torch.fx.experimental.proxy_tensor import make_fx

        sources: list[Node] = []
        torch.fx.node.map_arg((args, kwargs), sources.append)
        sources = list(dict.fromkeys(sources))
        number: Any = lambda source: _Position(sources.index(source))  # noqa: E731
        arguments = torch.fx.node.map_arg((args, kwargs), number)

        def call(*values: Any) -> Any:
            positional, named = _filled(arguments, values)
            return build(*positional, **named)

        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            traced = make_fx(call, pre_dispatch=True)(*_alike([source.meta["val"] for source in sources]))
        traced.graph.eliminate_dead_code()
        return traced, sources

    def _hand_over(self, node: Node, result: Any, values: dict[Any, Any]) -> None:
        """Let the readers of ``node`` read the new values."""
        import operator

        name = node.name
        if isinstance(result, tuple | list):
            for user in list(node.users):
                if user.target is not operator.getitem:
                    raise TypeError(f"'{user}' reads the tuple '{node}' whole.")
                user.replace_all_uses_with(values[result[int(user.args[1])]])  # type: ignore[arg-type]
                self.graph.erase_node(user)
            self.graph.erase_node(node)
            return
        made = values[result]
        node.replace_all_uses_with(made)
        self.graph.erase_node(node)
        if made.op == "call_function" and result.op == "call_function":
            made.name = name

    def _fake(self, value: torch.Tensor) -> Any:
        mode = self._mode()
        return value if mode is None else mode.from_tensor(value, static_shapes=True)

    def _in_mode(self, value: Any) -> Any:
        """What tracing knows of a value, in the mode of the program's own values: constants are traced in another one."""
        import torch

        mode = self._mode()
        if not isinstance(value, torch.Tensor) or mode is None or getattr(value, "fake_mode", None) is mode:
            return value
        with mode:
            return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype)

    def _mode(self) -> Any:
        modes = (getattr(node.meta.get("val"), "fake_mode", None) for node in self.graph.nodes)
        return next((mode for mode in modes if mode is not None), None)


class _Position:
    """Stands for the n-th tensor argument of a node."""

    def __init__(self, index: int) -> None:
        self.index = index


def _alike(values: list[Any]) -> list[Any]:
    """Stand-ins of tensors in one fake mode: constants that were added may have come with another."""
    import torch

    modes = [mode for value in values if (mode := getattr(value, "fake_mode", None)) is not None]
    if all(mode is modes[0] for mode in modes):
        return values
    with modes[0]:
        return [
            torch.empty_strided(value.shape, value.stride(), dtype=value.dtype)
            if getattr(value, "fake_mode", modes[0]) is not modes[0]
            else value
            for value in values
        ]


def _filled(structure: Any, values: tuple[Any, ...]) -> Any:
    if isinstance(structure, _Position):
        return values[structure.index]
    if isinstance(structure, dict):
        return {key: _filled(value, values) for key, value in structure.items()}
    if isinstance(structure, tuple | list):
        filled = [_filled(value, values) for value in structure]
        return tuple(filled) if type(structure) is tuple else filled
    return structure


def _changes(node: Node) -> bool:
    """Whether a node writes into a tensor, or does anything else than compute."""
    return node.is_impure() and str(node.target) != "aten.detach_.default"


def _origin(node: Node) -> dict[str, Any]:
    """What says where in the user's model a node comes from."""
    return {key: node.meta[key] for key in ("nn_module_stack", "stack_trace", "source_fn_stack") if key in node.meta}


def copied_graph(program: ExportedProgram) -> GraphModule:
    """A copy of a program's graph whose nodes keep their names."""
    register_operators()
    made: GraphModule = copy.deepcopy(program.graph_module)
    for old, new in zip(program.graph.nodes, made.graph.nodes, strict=True):
        new.name = old.name  # a copy renames what is also the name of something in Python, like "input"
    return made


def rebuilt(
    program: ExportedProgram,
    graph_module: GraphModule,
    state: dict[str, Any],
    *,
    signature: Any = None,
    example_inputs: Any = None,
) -> ExportedProgram:
    """A program of a changed graph, with the other things of ``program``."""
    from torch.export import ExportedProgram

    graph_module.graph.lint()
    graph_module.recompile()
    signature = signature or copy.deepcopy(program.graph_signature)
    tensors = [spec for spec in signature.output_specs if not hasattr(spec.arg, "value")]
    for spec, name in zip(tensors, _results(graph_module.graph), strict=True):
        spec.arg = dataclasses.replace(spec.arg, name=name)  # one by one: two outputs may have been the same tensor
    return ExportedProgram(
        root=graph_module,
        graph=graph_module.graph,
        graph_signature=signature,
        state_dict=state,
        range_constraints=program.range_constraints,
        module_call_graph=program.module_call_graph,
        example_inputs=example_inputs or program.example_inputs,
        constants=program.constants,
        verifiers=program.verifiers,
    )


def _with_examples(program: ExportedProgram, changed: Mapping[str, torch.Tensor]) -> Any:
    """The program's example inputs, some of them in another form."""
    if not changed or program.example_inputs is None:
        return program.example_inputs
    arguments, keywords = program.example_inputs
    names = [str(name) for name in program.graph_signature.user_inputs]
    return tuple(changed.get(name, value) for name, value in zip(names, arguments, strict=True)), keywords


def _results(graph: Graph) -> list[str]:
    """Names of the nodes a graph returns, one for each output."""
    (output,) = (node for node in graph.nodes if node.op == "output")
    returned: Any = output.args[0]
    return [value.name for value in returned if hasattr(value, "name")]
