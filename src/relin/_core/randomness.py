"""Random numbers that a function draws while it is traced: JAX keeps them as constants of the program."""

import pickle
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import CodeType, FunctionType, ModuleType
from typing import Any

import numpy as np

_LIBRARIES = {"jax", "jaxlib", "numpy", "scipy", "optax", "equinox", "flax", "torch", "torchax", "relin"}
"""Their functions draw from no generator that they hold."""
_MOST_OBJECTS = 20_000


class RandomnessError(ValueError):
    """A network that draws from a generator while it is traced."""

    def __init__(self, generator: str):
        super().__init__(
            "The network must not draw random numbers when it is traced, got one that draws from "
            f"{generator}: one draw would serve every step; pass them in with the inputs, or let an adapter train the "
            "module with dropout=True."
        )


@contextmanager
def not_drawn(function: Any, refuse: Callable[[str], Any]) -> Iterator[None]:
    """Calls `refuse` with a generator's name if what is done inside draws from Python's, NumPy's or one of its own.

    `function` holds its own in what it closes over, its defaults, attributes and the globals that it names.
    """
    named: list[tuple[str, Callable[[], Any]]] = [
        ("Python's `random`", random.getstate),
        ("NumPy's global generator", np.random.get_state),
    ]
    if "torch" in sys.modules:
        named.append(("PyTorch's generator of the CPU", lambda: sys.modules["torch"].get_rng_state().numpy().tobytes()))
    named += [(f"a {type(held).__name__} that it holds", _reader(held)) for held in _held(function)]
    before = [pickle.dumps(state()) for _, state in named]
    yield
    for (name, state), then in zip(named, before, strict=True):
        if pickle.dumps(state()) != then:
            refuse(name)


def _kinds() -> tuple[type, ...]:
    torch = sys.modules.get("torch")
    kinds = (random.Random, np.random.Generator, np.random.RandomState)
    return kinds if torch is None else (*kinds, torch.Generator)


def _reader(generator: Any) -> Callable[[], Any]:
    """The state of a generator as what can be compared."""
    if isinstance(generator, np.random.Generator):
        return lambda: generator.bit_generator.state
    if isinstance(generator, random.Random):
        return generator.getstate
    if isinstance(generator, np.random.RandomState):
        return generator.get_state
    return lambda: generator.get_state().tolist()


def _held(root: Any) -> list[Any]:
    """The generators that a function or an object holds."""
    kinds, found, seen = _kinds(), [], dict[int, Any]()
    remaining: list[Any] = [root]
    while remaining and len(seen) < _MOST_OBJECTS:
        value = remaining.pop()
        if id(value) in seen or isinstance(value, type | str | bytes | int | float | np.ndarray):
            continue
        seen[id(value)] = value
        if isinstance(value, kinds):
            found.append(value)
        elif isinstance(value, FunctionType):
            remaining += [] if _is_of_a_library(value) else _of_a_function(value, kinds)
        elif isinstance(value, dict):
            remaining += value.values()
        elif isinstance(value, list | tuple | set | frozenset):
            remaining += value
        elif not isinstance(value, ModuleType):
            own = getattr(value, "__dict__", None)
            remaining += own.values() if isinstance(own, dict) else ()
            remaining += [getattr(value, name, None) for name in ("__self__", "__func__", "__wrapped__")]
            remaining += (value.func, value.args, value.keywords) if isinstance(value, partial) else ()
    return found


def _is_of_a_library(value: Any) -> bool:
    return (value.__module__ or "").split(".")[0] in _LIBRARIES


def _of_a_function(function: FunctionType, kinds: tuple[type, ...]) -> list[Any]:
    """What a function closes over, its defaults, and the globals it names; of modules, generators named with them."""
    values = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    for cell in function.__closure__ or ():
        try:
            values.append(cell.cell_contents)
        except ValueError:  # not assigned yet
            continue
    names = _names(function.__code__)
    for value in [function.__globals__[name] for name in names if name in function.__globals__]:
        if isinstance(value, ModuleType):
            values += [own for own in (vars(value).get(name) for name in names) if isinstance(own, kinds)]
        else:
            values.append(value)
    return values


def _names(code: CodeType) -> set[str]:
    inner = (_names(constant) for constant in code.co_consts if isinstance(constant, CodeType))
    return set(code.co_names).union(*inner)
