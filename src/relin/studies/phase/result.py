"""What the phase study concludes: data computed from stored records."""

from pydantic import BaseModel, ConfigDict, Field

from relin.study._result import GridResult, Interval, ScheduleOutcome

FEWEST_TOTALS = 3
"""That a power is fitted to: two would always lie on a line."""
FEWEST_SEEDS = 3
"""That the jackknife leaves out in turn: two would be left with one, and no spread."""


class PhaseCell(BaseModel):
    """A place (T, n) of the map: n feature updates in T steps, at the learning rate chosen for them there."""

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="strings")

    total: int = Field(description="Training steps T.")
    updates: int = Field(description="Feature updates n = ⌈T/K⌉ − 1.")
    outcome: ScheduleOutcome = Field(description="Its differences are those to ordinary training of the same T.")
    versus_best: Interval | None = Field(
        description="Paired difference in test accuracy to ordinary training of the best T; none for that itself."
    )
    p_value_best: float | None = Field(
        description="Of the hypothesis that this loss is the margin or more, after Holm's correction over the map."
    )
    reaches_best: bool | None = Field(description="Whether it is on par with the best T; none as p_value_best is.")


class TotalOutcome(BaseModel):
    """How many feature updates suffice in T steps."""

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="strings")

    total: int
    enough_updates: int | None = Field(
        description="n*, the fewest updates on par together with every larger number tested; T − 1 if none is; none "
        "if no run of K = 1 trained, or of values none is better than a constant, or no other n was tested."
    )
    period: float | None = Field(description="K of these.")
    crossing: float | None = Field(
        description="n + 1 at which the mean loss reaches the margin, interpolated; none where that of every n tested "
        "stays below."
    )

    @property
    def is_fewer(self) -> bool:
        """Whether fewer updates than those of ordinary training are shown to suffice."""
        return self.enough_updates is not None and self.enough_updates < self.total - 1


class PhaseResult(GridResult):
    """The answer to *how many feature updates suffice, as training grows longer?*"""

    cells: list[PhaseCell] = Field(description="By T, then by n.")
    totals: list[TotalOutcome] = Field(description="In increasing order of T.")
    best_total: int | None = Field(
        description="The T whose ordinary training has the best mean validation accuracy; none as n* where no T "
        "has one."
    )
    growth: Interval | None = Field(
        description="Power of T with which the crossing grows: least squares of logarithms, interval by the jackknife "
        "over seeds; none with fewer than three T that have a crossing."
    )
    misfit: float | None = Field(description="Largest factor between a crossing and that power of T; none without it.")

    def at(self, total: int) -> list[PhaseCell]:
        """The cells of a T, by increasing n."""
        return [cell for cell in self.cells if cell.total == total]

    @property
    def is_comparable(self) -> bool:
        return self.best_total is not None or super().is_comparable

    @property
    def widest_margin(self) -> float:
        """The largest margin of any T; of classes all have the same."""
        return max(self.margin_of(self.at(own.total)[-1].outcome) for own in self.totals)

    def answer_at(self, total: int) -> int | None:
        """n* of a T."""
        return next(own.enough_updates for own in self.totals if own.total == total)
