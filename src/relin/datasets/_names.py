"""The names of data sets: what they say before any data is read."""

from pathlib import PurePath
from typing import Literal, NamedTuple

from relin.datasets._sources import SOURCES

FORMS = (
    "FILE.npz, X.npy,Y.npy, FILE.csv#COLUMN (also .tsv and .parquet), huggingface:FOLDER#COLUMN, text:FOLDER and "
    "bytes:FOLDER"
)
"""How one's own data are named."""
_TABLES = (".csv", ".tsv", ".parquet")


class Own(NamedTuple):
    """What a name of one's own data says: where they are, and which column is the target."""

    kind: Literal["text", "bytes", "table", "huggingface", "npz", "npy"]
    paths: tuple[str, ...]
    target: str | None = None


def names() -> tuple[str, ...]:
    """The names that `load` takes, beside those of one's own data."""
    return ("digits", "mnist1d", "diabetes", *SOURCES)


def is_known(name: str) -> bool:
    """Whether `load` takes a name: one of `names()`, or a name of one's own data, see `load`."""
    return name in names() or own(name) is not None


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
