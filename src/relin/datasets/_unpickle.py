"""Unpickling CIFAR's Python files without trusting them.

The published files are protocol-2 pickles written by Python 2: a dict of strings, lists of integers and one
uint8 array. A pickle can name any callable of any module, so only the names by which NumPy arrays and byte
strings are rebuilt are admitted, and those are bound to the plain functions below, never to the modules
named. That also keeps reading independent of NumPy's private modules, whose names differ between the versions
that wrote such files.
"""

import io
import pickle
import pickletools
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from relin.datasets._errors import DatasetError


class _ForbiddenGlobalError(pickle.UnpicklingError):
    """The pickle names a global that no CIFAR file needs."""


class _PickledType:
    """Stands for `numpy.dtype(code, …)`, of plain integers only."""

    def __init__(self, code: Any, *flags: Any):
        code = code.decode("ascii") if isinstance(code, bytes) else code
        if not (isinstance(code, str) and re.fullmatch("[iu][1248]", code)):
            raise pickle.UnpicklingError(f"arrays of type {code!r} where integers are expected")
        self.type = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        # (version, byte order, …); '|' and '=' leave the order as it is.
        order = state[1].decode("ascii") if isinstance(state[1], bytes) else state[1]
        if order in ("<", ">"):
            self.type = self.type.newbyteorder(order)


class _PickledArray:
    """Stands for an array while it is being rebuilt."""

    def __init__(self) -> None:
        self.array: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, fortran, raw = state
        if not (isinstance(kind, _PickledType) and isinstance(raw, bytes) and isinstance(shape, tuple)):
            raise pickle.UnpicklingError("an array whose state is not (shape, integer type, order, bytes)")
        self.array = np.frombuffer(raw, kind.type).reshape(shape, order="F" if fortran else "C")


class _Admitted:
    """A callable whose attributes a pickle cannot set, as it could those of a function."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]):
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("a state for a callable")


def _refuse_array(*_: Any) -> None:
    raise pickle.UnpicklingError("an array built directly")


def _reconstruct(kind: Any, *_: Any) -> _PickledArray:
    if kind is not _ADMITTED["numpy", "ndarray"]:
        raise pickle.UnpicklingError("an array of a subclass")
    return _PickledArray()


_ADMITTED = {
    ("numpy.core.multiarray", "_reconstruct"): _Admitted(_reconstruct),
    ("numpy._core.multiarray", "_reconstruct"): _Admitted(_reconstruct),
    ("numpy", "ndarray"): _Admitted(_refuse_array),
    ("numpy", "dtype"): _Admitted(_PickledType),
}


class _Unpickler(pickle.Unpickler):
    def __init__(self, data: bytes):
        # Python 2's strings are bytes; `bytes` keeps them so instead of guessing an encoding.
        super().__init__(io.BytesIO(data), encoding="bytes")
        self._left = len(data)

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        if (module_name, global_name) == ("_codecs", "encode"):
            return _Admitted(self._encode)
        try:
            return _ADMITTED[module_name, global_name]
        except KeyError:
            raise _ForbiddenGlobalError(f"{module_name}.{global_name}") from None

    def _encode(self, text: Any, encoding: Any) -> bytes:
        # How Python 3 writes bytes in protocol 2.
        if not (isinstance(text, str) and encoding in ("latin1", b"latin1")):
            raise pickle.UnpicklingError("text in an encoding other than latin1")
        self._left -= len(text)
        if self._left < 0:
            raise pickle.UnpicklingError("the same text encoded again and again")
        return text.encode("latin1")


def unpickle(where: str, data: bytes) -> dict[str, Any]:
    """A pickled dict of plain values and integer arrays, its keys as text; `where` names the file."""
    try:
        _check_memo(data)
        content = _Unpickler(data).load()
    except _ForbiddenGlobalError as error:
        raise DatasetError(
            f"{where} is a pickle that asks for {error}, which no CIFAR file needs and which was not run; do "
            "not trust this file and replace it with the official one."
        ) from error
    # A damaged pickle can fail in any operation it happens to encode.
    except Exception as error:
        raise DatasetError(
            f"{where} is a truncated or damaged pickle ({type(error).__name__}: {error}); replace it with a fresh copy."
        ) from error
    if not isinstance(content, dict):
        raise DatasetError(
            f"{where} should hold a pickled dict but holds a {type(content).__name__}; replace it with the "
            "official file."
        )
    return {_text(key): _plain(value) for key, value in content.items()}


def _check_memo(data: bytes) -> None:
    """Refuses a place in the unpickler's memory beyond the pickle's own length: it reserves all places before it."""
    for opcode, place, _ in pickletools.genops(data):
        if "PUT" in opcode.name and place is not None and place > len(data):
            raise pickle.UnpicklingError(f"an object at place {place} of {len(data)} bytes")


def _text(key: Any) -> str:
    return key.decode("latin1") if isinstance(key, bytes) else str(key)


def _plain(value: Any) -> Any:
    return value.array if isinstance(value, _PickledArray) else value
