"""The names of data sets: what they say before any data is read."""

from relin.datasets._sources import SOURCES

_OF_VALUES = "diabetes"


def names() -> tuple[str, ...]:
    """The names that `load` takes."""
    return ("digits", "mnist1d", _OF_VALUES, *SOURCES)


def is_known(name: str) -> bool:
    """Whether `load` takes a name: one of `names()`, or `text:FOLDER`, `bytes:FOLDER` or `table:FILE#COLUMN`."""
    kind, _, where = name.partition(":")
    if kind == "table":
        path, _, column = where.rpartition("#")
        return bool(path.strip() and column.strip())
    return name in names() or (kind in ("text", "bytes") and bool(where.strip()))


def has_values(name: str) -> bool:
    """Whether the targets of a known data set are values, not classes."""
    return name == _OF_VALUES or name.startswith("table:")
