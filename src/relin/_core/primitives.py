"""Which primitives a function uses, without JAX's internals."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from relin._core import tree as _tree
from relin._core.programs import behind_equinox, inner_programs

SLOW_IN_LOOPS_ON_CPU = frozenset(
    {"conv_general_dilated", "reduce_window_max", "reduce_window_sum", "select_and_gather_add"}
)
"""XLA on CPU runs these many times slower inside a loop or a conditional than outside."""


def primitives(function: Callable, *arguments: Any) -> set[str]:
    """The names of all primitives in a function's program, nested ones included."""
    return {equation.primitive.name for equation in _equations(jax.make_jaxpr(function)(*arguments).jaxpr)}


def backward_only(function: Callable, *arguments: Any) -> list[str]:
    """The functions with a custom_vjp rule in a function's program, for which JAX has no forward-mode derivative, each
    as `name at file:line`."""
    names = []
    for equation in _equations(jax.make_jaxpr(function)(*arguments).jaxpr):
        if equation.primitive.name.startswith("custom_vjp_call"):
            inner = equation.params.get("call_jaxpr", equation.params.get("fun_jaxpr"))
            debug = getattr(getattr(inner, "jaxpr", inner), "debug_info", None)
            names.append(behind_equinox(equation) or getattr(debug, "func_src_info", None) or "a function")
    return list(dict.fromkeys(names))


def depends(function: Callable, *arguments: Any) -> bool:
    """Whether a function's result may depend on its arguments; an operation's results are taken to depend on all that
    it is given."""
    program = jax.make_jaxpr(lambda *a: function(*a))(*arguments).jaxpr
    reached = set(program.invars)
    for equation in program.eqns:
        if any(not hasattr(atom, "val") and atom in reached for atom in equation.invars):
            reached.update(equation.outvars)
    return any(not hasattr(atom, "val") and atom in reached for atom in program.outvars)


def scopes(function: Callable, *arguments: Any) -> set[str]:
    """The `jax.named_scope`s of the operations of a function's program, nested ones included."""
    equations = _equations(jax.make_jaxpr(lambda *a: function(*a))(*arguments).jaxpr)
    return {str(getattr(equation.source_info, "name_stack", "")) for equation in equations}


def constants(function: Callable, *arguments: Any) -> list[Any]:
    """What a function's program is made of beside its arguments, in order: its operations, their settings that are
    numbers, and its constants. The function is traced anew at every call."""
    program = jax.make_jaxpr(lambda *a: function(*a))(*arguments)
    found: list[Any] = [_bytes(constant) for constant in program.consts]
    for equation in _equations(program.jaxpr):
        found += [equation.primitive.name, *(_bytes(atom.val) for atom in equation.invars if hasattr(atom, "val"))]
        for name, value in sorted(equation.params.items()):
            found += [_bytes(constant) for constant in getattr(value, "consts", ())]
            if isinstance(value, int | float | complex | str | tuple) and not _programs_in(value):
                found.append((name, repr(value)))
    return found


def _programs_in(value: Any) -> bool:
    return isinstance(value, tuple) and any(hasattr(getattr(v, "jaxpr", v), "eqns") or callable(v) for v in value)


def _bytes(value: Any) -> bytes:
    return np.asarray(_tree.numbers(value)).tobytes()


def slow_in_loops(function: Callable, *arguments: Any) -> bool:
    """Whether the default device would run the function much slower inside a loop."""
    return jax.default_backend() == "cpu" and not SLOW_IN_LOOPS_ON_CPU.isdisjoint(primitives(function, *arguments))


def _equations(jaxpr: Any) -> Iterator[Any]:
    for equation in jaxpr.eqns:
        yield equation
        for inner in inner_programs(equation):
            yield from _equations(getattr(inner, "jaxpr", inner))  # a closed program holds an open one
