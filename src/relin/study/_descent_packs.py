"""The runs of the studies of full-batch gradient descent: one pack each."""

import math
from dataclasses import dataclass
from typing import Literal

from relin.study._descent_specs import DampingSpec, InterpolationSpec
from relin.study._pack import AbstractPack, Identity

Way = Literal["every", "gauss-newton", "ordinary", "regression", "limit"]
"""Iterative linearisation of period K; Gauss–Newton damped by λ = 1/(ηκ); a plain loop of ordinary training; the closed
form of lazy training after T steps, and at its limit."""
_CHEAPER = 20
"""About how many times an anchor's many steps at once cost one step."""


@dataclass(frozen=True)
class DescentPack(AbstractPack):
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


def damping_packs(spec: DampingSpec) -> list[DescentPack]:
    """All runs of the study, those of a seed together."""
    numbers: dict[Way, list[float]] = {"every": spec.periods, "gauss-newton": spec.kappas}
    return [
        DescentPack(way, seed, spec.outer_steps, spec.rate, number, spec.outer_steps)
        for seed in range(spec.seeds)
        for way, own in numbers.items()
        for number in own
    ]


def interpolation_packs(spec: InterpolationSpec) -> list[DescentPack]:
    """All runs of the study, those of a seed together, the long ones first."""

    def work(period: float) -> int:
        if period <= spec.stepped_up_to:
            return spec.steps
        anchors = 1 if math.isinf(period) else math.ceil(spec.steps / period)
        return math.ceil(anchors * _CHEAPER * math.sqrt(min(period, spec.steps)))

    packs = []
    for seed in range(spec.seeds):
        packs.append(DescentPack("ordinary", seed, spec.steps, spec.rate, None, spec.steps))
        packs += [DescentPack("every", seed, spec.steps, spec.rate, k, work(k)) for k in spec.periods]
        packs += [DescentPack("regression", seed, spec.steps, spec.rate)]
        packs += [DescentPack("limit", seed, spec.steps, spec.rate)]
    return packs
