"""Which primitives a function uses, without JAX's internals."""

from collections.abc import Callable, Iterator
from typing import Any

import jax

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
            names.append(getattr(debug, "func_src_info", None) or "a function")
    return list(dict.fromkeys(names))


def slow_in_loops(function: Callable, *arguments: Any) -> bool:
    """Whether the default device would run the function much slower inside a loop."""
    return jax.default_backend() == "cpu" and not SLOW_IN_LOOPS_ON_CPU.isdisjoint(primitives(function, *arguments))


def _equations(jaxpr: Any) -> Iterator[Any]:
    for equation in jaxpr.eqns:
        yield equation
        for parameter in equation.params.values():
            for inner in parameter if isinstance(parameter, tuple | list) else (parameter,):
                inner = getattr(inner, "jaxpr", inner)  # a closed program holds an open one
                if hasattr(inner, "eqns"):
                    yield from _equations(inner)
