"""Words that messages share."""

import reprlib
from collections.abc import Iterable
from typing import Any

MOST_NAMES = 10


def listed(names: Iterable[object]) -> str:
    """The names, at most ten of them, with the number of the others."""
    every = list(map(str, names))
    left = len(every) - MOST_NAMES
    return ", ".join(every[:MOST_NAMES]) + (f" and {left} more" if left > 0 else "")


_SHORT = reprlib.Repr()
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxdict = MOST_NAMES
_SHORT.maxstring = _SHORT.maxother = 80


def shortened(value: Any) -> str:
    """What was given, as code, but not all of a long one."""
    return _SHORT.repr(value)
