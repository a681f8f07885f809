"""What tells objects apart that are given in Python: functions and what they close over, arrays, objects by state."""

import copyreg
import hashlib
import inspect
import sys
import sysconfig
import weakref
from collections.abc import Iterator
from functools import cache, cached_property, partial, singledispatch, singledispatchmethod
from importlib.metadata import version
from operator import attrgetter
from pathlib import Path
from types import (
    BuiltinFunctionType,
    CodeType,
    FunctionType,
    GetSetDescriptorType,
    MappingProxyType,
    MemberDescriptorType,
    MethodType,
    ModuleType,
)
from typing import Any

import jax
import numpy as np

from relin.datasets._dataset import Dataset
from relin.datasets._identity import identity


class UnknowableError(ValueError):
    """A value that cannot be told from another one; the message is its type and the beginning of a sentence."""


def fingerprint(value: Any) -> str:
    """SHA-256 of a value's description: the same in every process of one Python, and another one for another value.

    A function is described by its source text, defaults, closure, and, unless it is of an installed package, by the
    globals it names and the functions among them; other objects by their type and state, as pickling would see it.

    **Raises:** `UnknowableError` for a value that holds something without a state that can be read, such as a lock.
    """
    try:
        text = repr(_Describing()(value))
    except RecursionError:
        raise UnknowableError(f"{type(value).__name__} {_REASON}") from None
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def environment() -> str:
    """What last digits depend on beside what is computed."""
    return f"relin {version('relin')}, JAX {jax.__version__}, {jax.device_count()} × {jax.devices()[0].device_kind}"


_REASON = "cannot be told from another one"
_Compiled, _Caching = type(jax.jit(lambda: None)), type(cache(lambda: None))
"""What `jax.jit` and `functools.lru_cache` make, of which pickling tells too much or nothing."""
_DISPATCHER = getattr(singledispatch(lambda: None), "__code__", None)


class _Describing:
    """Describes values; what stands in them several times, or in a circle, is described once."""

    def __init__(self, in_class: bool = False):
        self.seen = dict[int, tuple[int, Any]]()
        """By identity: in which order it was met, and the object itself, so that its identity is not given again."""
        self.in_class = in_class
        """Whether what is described is reached through a class: what cannot be told there, as a lock, is told by its
        type."""

    def __call__(self, value: Any) -> Any:
        plain = isinstance(value, str | bytes | int | float | complex | bool | None)
        if plain and type(value).__module__ in ("builtins", "numpy"):  # others may have a state and methods
            return value
        if id(value) in self.seen:
            return "seen", self.seen[id(value)][0]
        self.seen[id(value)] = len(self.seen), value
        match value:
            case Dataset():
                return "dataset", identity(value)
            case jax.tree_util.PyTreeDef():
                return "structure", self(value.node_data()), [self(child) for child in value.children()]
            case ModuleType():
                return "module", value.__name__
            case type():
                return self._class(value)
            case FunctionType(__code__=code) if code is _DISPATCHER:  # it also holds what it has looked up
                return "dispatching", self(dict(value.registry))  # pyright: ignore[reportFunctionMemberAccess]
            case FunctionType(__wrapped__=checked) if getattr(value, "__beartype_wrapper", False):  # with addresses
                return "checked", self(checked)
            case FunctionType(__closure__=None) if _is_of_a_library(value):
                return "function", value.__module__, value.__qualname__, self._text(value)
            case FunctionType():
                return self._function(value)
            case MethodType():
                return "method", self(value.__self__), self(value.__func__)
            case staticmethod() | classmethod():
                return type(value).__name__, self(value.__func__)
            case property():
                return "property", [self(function) for function in (value.fget, value.fset, value.fdel)]
            case cached_property():  # in Python 3.11 it holds a lock
                return "cached property", self(value.func)
            case singledispatchmethod():
                return "dispatched", self(value.func), self(value.dispatcher)
            case weakref.ref():
                return "weak", self(value())
            case jax.Device():
                return "device", value.id
            case partial():
                parts = value.func, value.args, value.keywords, vars(value)
                return "partial", type(value).__qualname__, [self(part) for part in parts]
            case dict() | MappingProxyType():
                return *self._kind(value), [(self(key), self(one)) for key, one in value.items()]
            case list() | tuple():
                return *self._kind(value), [self(one) for one in value]
            case set() | frozenset():  # in no order: what is numbered in one would be numbered by chance
                return *self._kind(value), sorted(repr(_Describing(self.in_class)(one)) for one in value)
        return self._array(value) or self._object(value)

    def _kind(self, value: Any) -> tuple[Any, ...]:
        """The name of a container's type, and what it holds beside its entries."""
        return type(value).__qualname__, self(getattr(value, "__dict__", None))

    def _class(self, kind: type) -> Any:
        """Its text; of the user's own also its methods, with the globals that they name, its other attributes, which
        may have been assigned anew, and what it inherits."""
        named = "class", kind.__module__, kind.__qualname__, self._text(kind)
        if _is_installed(kind.__module__):
            return named
        before, self.in_class = self.in_class, True
        try:
            parts = [(name, self(part)) for name, part in vars(kind).items() if not _is_pythons(name, part)]
            return *named, parts, [self(base) for base in (*kind.__bases__, type(kind))]
        finally:
            self.in_class = before

    def _function(self, function: FunctionType) -> Any:
        cells = [cell.cell_contents for cell in function.__closure__ or () if not _is_empty(cell)]
        own = {}
        if function.__module__ in (None, "builtins") or not _is_installed(function.__module__):  # the first: of `exec`
            own = self._named(_names(function.__code__), function.__globals__, set())
        parts = (cells, function.__defaults__, function.__kwdefaults__, vars(function))
        return "function", function.__qualname__, self._text(function), *map(self, parts), own

    def _named(
        self, names: list[str], where: dict[str, Any], gone_through: set[str], prefix: str = ""
    ) -> dict[str, Any]:
        """What names stand for in a module's globals, and in modules of the user's among these."""
        found = {name: where[name] for name in names if name in where}
        own = {prefix + name: self(one) for name, one in found.items() if not _is_of_a_library(one)}
        for one in found.values():
            if isinstance(one, ModuleType) and not _is_installed(one.__name__) and one.__name__ not in gone_through:
                gone_through.add(one.__name__)
                own |= self._named(names, vars(one), gone_through, f"{one.__name__}.")
        return own

    def _text(self, value: Any) -> Any:
        """The source, and the code: two lambdas of one line have the same source."""
        code = getattr(value, "__code__", None)
        compiled = None if code is None else self(code)
        try:
            return inspect.getsource(value), compiled
        except (OSError, TypeError):
            return compiled or value.__qualname__

    def _array(self, value: Any) -> Any:
        """Of NumPy's, JAX's and PyTorch's arrays, keys among them; none for other objects."""
        torch = sys.modules.get("torch")
        if torch is not None and isinstance(value, torch.Tensor):
            value = value.detach().cpu().to_dense()
            try:
                value = value.numpy()
            except TypeError:  # NumPy has no such numbers
                return "tensor", str(value.dtype), self(value.double().numpy())
        if isinstance(value, jax.Array) and "key<" in str(value.dtype):
            return "key", str(value.dtype), self(jax.random.key_data(value))
        if not isinstance(value, np.ndarray | np.generic | jax.Array) or isinstance(value, np.ma.MaskedArray):
            return None
        array = np.asarray(value)
        if array.dtype == object:
            return "array", array.shape, [self(one) for one in array.ravel()]
        weak = bool(getattr(value, "weak_type", False))
        content = np.ascontiguousarray(array).reshape(-1).view(np.uint8)  # a copy of large data would take its memory
        return "array", str(array.dtype), array.shape, weak, hashlib.sha256(content.data).hexdigest()

    def _object(self, value: Any) -> Any:
        if isinstance(value, _Compiled | _Caching):
            state = dict(vars(value))
            wrapped = state.pop("__wrapped__")
            return "wrapped", type(value).__qualname__, self(wrapped), self(state), self._compiled_with(value)
        if isinstance(value, CodeType):
            return "code", value.co_code, self(value.co_consts), value.co_names
        kind = type(value).__module__, type(value).__qualname__
        if kind == ("flax.ids", "FlaxId"):  # counts the objects of a process
            return "object", kind
        try:
            reduced = copyreg.dispatch_table.get(type(value), _reduced)(value)
        except Exception:
            if state := getattr(value, "__dict__", None):
                return "object", kind, self(_uncached(value, state))
            if self.in_class:
                return "object", kind
            raise UnknowableError(f"{type(value).__name__} {_REASON}") from None
        if isinstance(reduced, str):
            if isinstance(value, np.ufunc) and not any(vars(one).get(reduced) is value for one in _modules()):
                raise UnknowableError(f"{reduced} {_REASON}")
            return "global", kind, reduced
        made, arguments, *state = reduced
        if state and isinstance(state[0], dict):
            state[0] = _uncached(value, state[0]) or None
        parts = [list(part) if isinstance(part, Iterator) else part for part in state]
        return "object", kind, getattr(made, "__qualname__", None) or self(made), self(arguments), self(parts)

    def _compiled_with(self, value: Any) -> Any:
        """The static arguments of `jax.jit`, of which only its own pickling tells."""
        try:
            return self(value.__getstate__())
        except Exception:
            return None


def _modules() -> list[ModuleType]:
    return [one for one in list(sys.modules.values()) if isinstance(one, ModuleType)]


def _reduced(value: Any) -> Any:
    return value.__reduce_ex__(4)


def _uncached(value: Any, state: dict[str, Any]) -> dict[str, Any]:
    """An object's state without what its cached properties have found: it is there only after they were used."""
    return {name: one for name, one in state.items() if not _is_found(value, name, one)}


def _is_found(value: Any, name: str, one: Any) -> bool:
    """Whether an attribute is what a cached property finds; one that was assigned is another."""
    found = inspect.getattr_static(type(value), name, None)
    if not isinstance(found, cached_property):
        return False
    try:
        return fingerprint(found.func(value)) == fingerprint(one)
    except Exception:
        return False


@cache
def _is_installed(module: str | None) -> bool:
    """Whether a module is relin's, of Python's library or of an installed package: known by its version."""
    if module == "__main__":
        return False
    if module is None or module.partition(".")[0] in (__name__.partition(".")[0], *sys.builtin_module_names):
        return True
    file = getattr(sys.modules.get(module), "__file__", None)
    if file is None:
        return False
    paths = (sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib"))
    return any(Path(file).resolve().is_relative_to(Path(path).resolve()) for path in paths)


def _is_of_a_library(value: Any) -> bool:
    """Whether a value is a module, or a class or function that a library defines.

    What a library's function makes or holds for the user, such as a schedule, a method of an object or a partial, is
    not: it has a state.
    """
    if isinstance(value, ModuleType):
        return True
    if not (callable(value) and hasattr(value, "__name__") and _is_installed(getattr(value, "__module__", None))):
        return False
    return isinstance(value, type | BuiltinFunctionType) or _is_defined_as(value, value.__module__)


def _is_defined_as(value: Any, module: Any) -> bool:
    """Whether a module has a value under the value's own name."""
    name = getattr(value, "__qualname__", value.__name__)
    try:
        return attrgetter(name)(sys.modules[module]) is value
    except (AttributeError, KeyError):
        return False


def _is_pythons(name: str, part: Any) -> bool:
    """Whether an attribute of a class is one that Python gives it."""
    special = name.startswith("__") and name.endswith("__")
    used = callable(part) or hasattr(part, "__get__")
    slot = isinstance(part, MemberDescriptorType | GetSetDescriptorType)
    return (special and not used) or name == "_abc_impl" or slot


def _is_empty(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return True
    return False


def _names(code: CodeType) -> list[str]:
    """The globals that a function and those defined in it name."""
    inner = [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    return sorted({*code.co_names, *(name for one in inner for name in _names(one))})
