"""Where records go as they are made."""

import abc
from collections.abc import Mapping
from typing import Any, TypeVar

import jax.numpy as jnp
import numpy as np

_Self = TypeVar("_Self")
_LONGEST = 32
"""Entries up to which a vector is logged as that many numbers."""


class AbstractLogger(abc.ABC):
    """Takes the records of `train` and `train_lanes` as they are made; a context manager, which closes it.

    A subclass defines `log` and, if it has something to close, `close`. One that can go on with what the logger of an
    earlier process wrote defines `handle` and `reopen` too: a run that goes on from a checkpoint shows it the records
    that the earlier one did not take, and all others every record again. What was taken is noted just after `log`: of a
    process that is killed between the two, one record is shown again.
    """

    @property
    def kind(self) -> str:
        """What says that two loggers are of one kind."""
        return type(self).__name__

    @abc.abstractmethod
    def log(self, step: int, values: Mapping[str, np.ndarray], lane: int | None = None) -> None:
        """One record: what was measured by name, of every shape, without `step`; `lane` is `None` in `train`."""

    def handle(self, lane: int | None = None) -> str | None:
        """What names, for another process, what the records of a lane were written to; none where nobody can go on."""
        del lane
        return None

    def reopen(self, handle: str, lane: int | None = None) -> bool:
        """Before the first record of a lane: goes on with what a handle names, and says whether it does."""
        del handle, lane
        return False

    def close(self) -> None:  # noqa: B027
        """Writes what is not written yet."""

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()


def numbers(values: Mapping[str, np.ndarray]) -> dict[str, float]:
    """What a tracker of numbers can show: finite scalars, and those in short vectors as `name/0`, `name/1`, …."""
    found: dict[str, float] = {}
    for name, value in values.items():
        if not any(jnp.issubdtype(value.dtype, kind) for kind in (jnp.floating, jnp.integer, jnp.bool_)):
            continue
        if value.ndim == 0:
            found[name] = float(value)
        elif value.ndim == 1 and value.size <= _LONGEST:
            found |= {f"{name}/{index}": float(entry) for index, entry in enumerate(value)}
    return {name: value for name, value in found.items() if np.isfinite(value)}
