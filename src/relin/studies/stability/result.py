"""What the stability study concludes: data computed from stored records."""

from pydantic import BaseModel, ConfigDict, Field

from relin.study._result import GridResult, Interval


class RateLimit(BaseModel):
    """Up to which learning rate a schedule trains."""

    model_config = ConfigDict(frozen=True)

    schedule: str
    largest_rate: float | None = Field(description="Largest learning rate at which every run trained; none if none is.")
    num_diverged: list[int | None] = Field(description="Diverged runs at each rate of `rates`; none where none ran.")
    num_failed: list[int | None] = Field(description="Runs that failed to train at each rate, in the same way.")
    num_runs: list[int] = Field(description="Runs at each rate of `rates`.")
    stable_rate: Interval | None = Field(
        description="2/λ_max at the anchors: of the largest sharpness recorded in each run at the chosen rate, over "
        "seeds; none where no run has a finite one, and of optimisers that are not gradient descent."
    )


class StabilityResult(GridResult):
    """The answer to *up to which learning rate does sparse feature learning train?*"""

    limits: list[RateLimit] = Field(description="In the order of the outcomes.")
    rates: list[float] = Field(description="The learning rates tried, increasing.")
    stable_rate_at_start: float | None = Field(
        description="Mean of 2/λ_max at the initial parameters; none of optimisers that are not gradient descent."
    )
    pareto: list[str] = Field(
        description="Schedules that no other beats in test accuracy with as few feature updates, fewest first."
    )

    @property
    def answers(self) -> list[str]:
        return self.pareto

    @property
    def what_answers(self) -> str:
        return "the Pareto front of accuracy against feature updates"
