"""Arrays in NumPy's files: an `.npz` with x and y, of one part or several, or a pair of `.npy`; never unpickled."""

import math
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from relin._common.files import open_file
from relin._common.words import listed
from relin.datasets._assemble import Content
from relin.datasets._errors import DatasetError
from relin.datasets._expanding import check_expansion
from relin.datasets._nested import mapped

_ROLES = {
    "x": ("x", "inputs", "images", "data", "features"),
    "y": ("y", "targets", "labels", "target", "label"),
}
PARTS = {"train": ("train", "training"), "validation": ("validation", "val", "valid", "dev"), "test": ("test",)}
"""How parts of data are called."""
_HEADERS: dict[tuple[int, int], Callable[[Any], tuple[tuple[int, ...], bool, np.dtype]]] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
_FAULTS = (EOFError, KeyError, ValueError, AttributeError, SyntaxError, RuntimeError, zipfile.BadZipFile, zlib.error)


def read_npz(path: Path) -> Content:
    """The arrays x and y, or x_train, y_train, x_validation, … of a file; those named x/left, x/right are a dictionary.

    **Raises:** `DatasetError` for a file that cannot be read, other names, Python objects.
    """
    parts: dict[str, dict[str, Any]] = {}
    with _reading(path, "npz file") as file, zipfile.ZipFile(file) as archive:
        members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
        places = _places(path, list(members))
        sizes = sum(member.file_size for member in members.values())
        check_expansion(path, sizes, path.stat().st_size)
        for name, (part, role, inner) in places.items():
            with archive.open(members[name]) as stored:
                array = _read_array(f"{name!r} in {path}", stored, members[name].file_size)
            found = parts.setdefault(part, {})
            if inner:
                found = found.setdefault(role, {})
            found[inner or role] = array
    for part, found in parts.items():
        if lacks := [role for role in _ROLES if role not in found]:
            raise DatasetError(
                f"{path} has no {lacks[0]} of the {part} part among its arrays {listed(members)}; {_NAMING}."
            )
    if "train" not in parts:
        raise DatasetError(f"{path} has no training part among its arrays {listed(members)}; {_NAMING}.")
    return Content({part: (mapped(_with_channels, found["x"]), found["y"]) for part, found in parts.items()})


def read_npy(x: Path, y: Path) -> Content:
    """An array of inputs and one of targets.

    **Raises:** `DatasetError` for files that cannot be read, Python objects.
    """
    arrays = []
    for path in (x, y):
        with _reading(path, "npy file") as file:
            arrays.append(_read_array(str(path), file, path.stat().st_size))
    return Content({"train": (_with_channels("x", arrays[0]), arrays[1])})


def _with_channels(_: str, x: np.ndarray) -> np.ndarray:
    """Grey pictures, bytes of shape (examples, height, width), with the axis of channels that networks expect."""
    return x[..., None] if x.dtype == np.uint8 and x.ndim == 3 else x


class _reading:  # noqa: N801
    """A file that is open, and says in one sentence what cannot be read of it."""

    def __init__(self, path: Path, kind: str):
        self.path, self.kind = path, kind

    def __enter__(self) -> BinaryIO:
        try:
            self.file = open_file(self.path)
        except OSError as error:
            raise DatasetError(f"{self.path} cannot be read ({error.strerror}); name a file that is there.") from None
        return self.file

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self.file.close()
        if isinstance(error, DatasetError):
            return
        if isinstance(error, (*_FAULTS, OSError)):
            reason = " ".join(str(error).split("\n")[0].split())
            raise DatasetError(
                f"{self.path} is no {self.kind} that can be read ({reason}); save it again with numpy."
            ) from None


_NAMING = "name them x and y, or x_train, y_train, x_validation, y_validation, x_test and y_test"


def _places(path: Path, names: list[str]) -> dict[str, tuple[str, str, str]]:
    """Of each array the part, the role, and the name within a dictionary of inputs."""
    found = {name: _place(name) for name in names}
    if wrong := [name for name, place in found.items() if place is None]:
        raise DatasetError(f"{path} has arrays of unknown use, {listed(wrong)}; {_NAMING}.")
    places = {name: place for name, place in found.items() if place is not None}
    for name, place in places.items():
        other = next(o for o, taken in places.items() if taken == place)
        if other != name:
            raise DatasetError(f"{path} has two arrays for one use, {other} and {name}; {_NAMING}.")
    return places


def _place(name: str) -> tuple[str, str, str] | None:
    outer, _, inner = name.partition("/")
    words = outer.lower().split("_")
    part = "train"
    for known, spellings in PARTS.items():
        if len(words) == 2 and (words[0] in spellings or words[1] in spellings):
            part = known
            words = [word for word in words if word not in spellings]
    role = next((role for role, spellings in _ROLES.items() if words and words[0] in spellings), None)
    return None if role is None or len(words) > 1 or (inner and role == "y") else (part, role, inner)


def _read_array(place: str, file: Any, size: int) -> np.ndarray:
    """What the header announces, if the file has it."""
    version = np.lib.format.read_magic(file)
    if version not in _HEADERS:
        raise DatasetError(f"{place} has format {version[0]}.{version[1]}; save a plain array of numbers or text.")
    shape, fortran, kind = _HEADERS[version](file)
    if kind.hasobject:
        raise DatasetError(
            f"{place} holds Python objects, which could run code and were not read; save numbers or text, for example "
            "with y.astype(str)."
        )
    announced = math.prod(shape) * kind.itemsize
    rest = size - file.tell()
    if announced != rest:
        raise DatasetError(f"{place} announces {announced:,} bytes but has {rest:,}, so it is damaged; save it again.")
    data = file.read(announced + 1)  # at its end a compressed member's checksum is compared
    if len(data) != announced:
        raise DatasetError(f"{place} announces {announced:,} bytes but has others, so it is damaged; save it again.")
    flat = np.frombuffer(data, kind) if kind.itemsize else np.empty(math.prod(shape), kind)
    return flat.reshape(shape, order="F" if fortran else "C")
