"""Traced programs read and run equation by equation: the one module that imports `jax.extend.core`."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import dropwhile, takewhile
from pathlib import Path
from typing import Any

import jax
from jaxtyping import Array

try:
    from jax.extend import core, source_info_util
except ImportError:  # everything then takes a route that reads no program
    core: Any = None
    source_info_util: Any = None

_JAX = Path(jax.__file__).parent
_WRAPPER = "/equinox/_ad.py"
_INLINED = frozenset({"jit", "pjit", "closed_call", "core_call", "remat", "remat2", "checkpoint"})


def can_run_equations() -> bool:
    """Whether this JAX lets a program run equation by equation."""
    return core is not None


def is_literal(atom: Any) -> bool:
    return hasattr(atom, "val")


def inner_programs(equation: Any) -> Iterator[Any]:
    """The programs in an equation's parameters, open or closed."""
    for parameter in equation.params.values():
        for inner in parameter if isinstance(parameter, tuple | list) else (parameter,):
            if hasattr(getattr(inner, "jaxpr", inner), "eqns"):
                yield inner


def evaluate(jaxpr: Any, equation: Any, values: Sequence[Array]) -> list[Array]:
    """The results of an equation of a program, computed as a program of this one equation."""
    operands = dict(zip(map(id, equation.invars), values, strict=True))
    variables = {id(atom): atom for atom in equation.invars if not is_literal(atom)}
    alone = jaxpr.replace(constvars=[], invars=list(variables.values()), outvars=equation.outvars, eqns=[equation])
    return core.jaxpr_as_fun(core.ClosedJaxpr(alone, []))(*(operands[name] for name in variables))


def line_of(equation: Any) -> str:
    """Where an equation comes from, as `file:line:column (function)`; empty where that cannot be told."""
    if source_info_util is None:
        return ""
    return source_info_util.summarize(equation.source_info)


def behind_equinox(equation: Any) -> str:
    """Who gave a function an `equinox.filter_custom_vjp` rule, as `name at file:line`; empty of other equations."""
    frames = getattr(getattr(equation.source_info, "traceback", None), "frames", ())
    callers = list(dropwhile(lambda frame: _JAX in Path(frame.file_name).parents, frames))  # the innermost is first
    wrapper = sum(1 for _ in takewhile(lambda frame: Path(frame.file_name).as_posix().endswith(_WRAPPER), callers))
    if not wrapper or wrapper == len(callers):
        return ""
    caller = callers[wrapper]
    return f"{caller.function_name} at {Path(caller.file_name).as_posix()}:{caller.line_num}"


def without_rules(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function without its `custom_vjp` rules, so that JAX differentiates what these belong to.

    **Raises:** `NotImplementedError` where it is called, for a rule inside a construct that cannot be run by its parts.
    """

    def without(*arguments: Any) -> Any:
        program, shapes = jax.make_jaxpr(function, return_shape=True)(*arguments)
        return jax.tree.unflatten(jax.tree.structure(shapes), run(program, jax.tree.leaves(arguments)))

    return without


def run(program: Any, values: Sequence[Any]) -> list[Any]:
    """A program's results, without its `custom_vjp` rules."""
    jaxpr, constants = getattr(program, "jaxpr", program), getattr(program, "consts", ())  # closed or open
    known = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*constants, *values), strict=True))

    def read(atom: Any) -> Any:
        return atom.val if is_literal(atom) else known[atom]

    for equation in jaxpr.eqns:
        operands = [read(atom) for atom in equation.invars]
        results = _by_parts(equation, operands) if _has_rule(equation) else evaluate(jaxpr, equation, operands)
        known.update(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _is_rule(equation: Any) -> bool:
    return equation.primitive.name.startswith("custom_vjp_call")


def _has_rule(equation: Any) -> bool:
    if equation.primitive.name.startswith("custom_jvp_call"):  # its derivative is its own
        return False
    return _is_rule(equation) or any(
        _has_rule(inner) for part in inner_programs(equation) for inner in getattr(part, "jaxpr", part).eqns
    )


def _by_parts(equation: Any, operands: list[Any]) -> Sequence[Any]:
    """An equation with a rule in it: its programs are run without."""
    name, settings = equation.primitive.name, equation.params
    if _is_rule(equation):
        return run(settings.get("call_jaxpr", settings.get("fun_jaxpr")), operands)
    if name in _INLINED:
        return run(settings["jaxpr"], operands)
    if name == "cond":
        return jax.lax.switch(operands[0], [_branch(part) for part in settings["branches"]], *operands[1:])
    if name == "while":
        first, second = settings["cond_nconsts"], settings["cond_nconsts"] + settings["body_nconsts"]
        of_test, of_body, start = operands[:first], operands[first:second], operands[second:]
        test, body = settings["cond_jaxpr"], settings["body_jaxpr"]
        return jax.lax.while_loop(
            lambda state: run(test, [*of_test, *state])[0], lambda state: run(body, [*of_body, *state]), start
        )
    if name == "scan":
        return _scanned(settings, operands)
    raise NotImplementedError(f"A custom_vjp rule inside {name} cannot be left out.")


def _branch(program: Any) -> Callable[..., list[Any]]:
    return lambda *operands: run(program, operands)


def _scanned(settings: Any, operands: list[Any]) -> list[Any]:
    constants, carried = settings["num_consts"], settings["num_carry"]

    def body(state: list[Any], slices: list[Any]) -> tuple[list[Any], list[Any]]:
        results = run(settings["jaxpr"], [*operands[:constants], *state, *slices])
        return results[:carried], results[carried:]

    scan = partial(jax.lax.scan, length=settings["length"], reverse=settings["reverse"], unroll=settings["unroll"])
    state, stacked = scan(body, operands[constants : constants + carried], operands[constants + carried :])
    return [*state, *stacked]
