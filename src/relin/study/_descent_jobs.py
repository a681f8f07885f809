"""The runs of the studies of full-batch gradient descent: one job each."""

import math
from dataclasses import dataclass
from typing import Literal

from relin.study._job import AbstractJob, Identity

Way = Literal["every", "gauss-newton", "ordinary", "regression", "limit"]
"""Iterative linearisation of period K; Gauss–Newton damped by λ = 1/(ηκ); a plain loop of ordinary training; the closed
form of lazy training after T steps, and at its limit."""


@dataclass(frozen=True)
class DescentJob(AbstractJob):
    """One run."""

    way: Way
    seed: int
    steps: int
    """Gradient steps, or Gauss–Newton steps."""
    rate: float
    """As in the settings."""
    number: float | None = None
    """K, or κ."""
    work: int = 1
    """About how much it costs."""

    @property
    def schedule(self) -> str:
        if self.number is None:
            return self.way
        if math.isinf(self.number):
            return "never"
        return f"{self.way}-{self.number:.10g}"

    @property
    def name(self) -> str:
        return f"{self.schedule}-seed{self.seed:03d}"

    @property
    def identities(self) -> set[Identity]:
        return {(self.schedule, self.steps, self.rate, self.seed, None)}

    @property
    def cost(self) -> int:
        return self.work
