"""The names of data sets: what they say before any data is read."""

import re
from pathlib import PurePath
from typing import Literal, NamedTuple

from relin.datasets._sources import SOURCES

FORMS = (
    "FILE.npz, X.npy,Y.npy, FILE.csv#COLUMN (also .tsv and .parquet), huggingface:FOLDER#COLUMN, text:FOLDER and "
    "bytes:FOLDER"
)
"""How one's own data are named."""
_LARGEST_ORDERS = {"parity": 16, "staircase": 8, "single-index": 3, "multi-index": 8}
KINDS = tuple(_LARGEST_ORDERS)
"""How the names of generated functions begin."""
_FEWEST_INPUTS, _MOST_INPUTS = 16, 1024
FUNCTION_FORMS = (
    f"{', '.join(f'{kind}-D-K (K up to {most})' for kind, most in _LARGEST_ORDERS.items())}, of D inputs, "
    f"{_FEWEST_INPUTS} to {_MOST_INPUTS}"
)
"""How generated functions are named."""
_FUNCTION = re.compile(rf"({'|'.join(KINDS)})-([1-9]\d{{0,4}})-([1-9]\d?)")
_TABLES = (".csv", ".tsv", ".parquet")


class Own(NamedTuple):
    """What a name of one's own data says: where they are, and which column is the target."""

    kind: Literal["text", "bytes", "table", "huggingface", "npz", "npy"]
    paths: tuple[str, ...]
    target: str | None = None


class Function(NamedTuple):
    """What a name such as parity-20-3 says: a generated function of 20 inputs, of order 3."""

    kind: str
    inputs: int
    order: int

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.inputs}-{self.order}"


def function(name: str) -> Function | None:
    """What the name of a generated function says; none for other names, and for numbers out of range."""
    if (found := _FUNCTION.fullmatch(name)) is None:
        return None
    asked = Function(found[1], int(found[2]), int(found[3]))
    in_range = _FEWEST_INPUTS <= asked.inputs <= _MOST_INPUTS and asked.order <= _LARGEST_ORDERS[asked.kind]
    return asked if in_range else None


def names() -> tuple[str, ...]:
    """The names that `load` takes, beside those of one's own data and of generated functions."""
    return ("digits", "mnist1d", "diabetes", *SOURCES)


def is_known(name: str) -> bool:
    """Whether `load` takes a `name`: of `names()`, of one's own data or of a generated function."""
    return name in names() or own(name) is not None or function(name) is not None


def own(name: str) -> Own | None:
    """What a name of one's own data says; none for other names."""
    kind, _, where = name.partition(":")
    if kind in ("text", "bytes"):
        return Own(kind, (where,)) if where.strip() else None  # pyright: ignore[reportArgumentType]
    if kind in ("table", "huggingface"):
        path, _, target = where.rpartition("#") if "#" in where else (where, "", "")
        complete = path.strip() and (target.strip() or (kind == "huggingface" and "#" not in where))
        return Own(kind, (path,), target or None) if complete else None  # pyright: ignore[reportArgumentType]
    paths = tuple(name.split(","))
    if len(paths) == 2 and all(_suffix(path) == ".npy" for path in paths):
        return Own("npy", paths)
    if _suffix(name) == ".npz":
        return Own("npz", (name,))
    path, _, target = name.rpartition("#")
    return Own("table", (path,), target) if _suffix(path) in _TABLES and target.strip() else None


def folder_name(name: str) -> str:
    """What stands for a data set in the name of a folder: the name, or of one's own data the file's and the target."""
    found = own(name)
    if found is None:
        return name
    kind = () if found.kind in ("table", "npz", "npy") else (found.kind,)
    target = () if found.target is None else ("".join(c if c.isalnum() else "_" for c in found.target),)
    return "-".join((*kind, PurePath(found.paths[0]).name, *target))


def _suffix(path: str) -> str:
    return PurePath(path).suffix.lower()
