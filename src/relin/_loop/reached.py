"""Where a run is, with all that it has recorded: what a solution is made from, and what training goes on from."""

from dataclasses import dataclass
from typing import Any

from relin._core.types import State
from relin._loop.program import RunState

Rows = list[dict[str, Any]]
Losses = tuple[Any, Any]
"""Sum and number of the batches' losses since the last record."""


@dataclass(frozen=True)
class Earlier:
    """Where the last tenth of a run without records on the way begins."""

    step: int
    losses: Losses


@dataclass(frozen=True)
class Reached:
    """Of one run, or of many lanes that run together."""

    step: int | float
    state: RunState
    observed: State
    """The observers' states."""
    rows: Rows
    num_steps: int | float
    """T of the run that came here."""
    earlier: Earlier | None = None
    """Once it is reached."""
    final: Any = None
    """Mean loss of its last tenth, once the run is at its end."""
    position: Any = None
    """Where batches from Python are, see `AbstractSource`."""
