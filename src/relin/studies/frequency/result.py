"""What the frequency study concludes: data computed from stored records."""

from typing import Literal

from pydantic import Field

from relin.study._result import GridResult


class FrequencyResult(GridResult):
    """The answer to *how rarely can features be updated without loss?*"""

    comparison: Literal["equal-steps", "equal-distance"] = Field(
        description="Whether all runs took T steps, or those at smaller learning rates more."
    )
    k_star: float | None = Field(
        description="Largest K on par together with every smaller K tested; 1 if the smallest is not, "
        "none if no K above 1 was tested or no run of K = 1 trained."
    )
    sufficient_feature_updates: int | None = Field(
        description="⌈T/K*⌉ − 1, or the mean of K*'s runs where they may take more steps than T; none without K*."
    )
    fewest_updates: str | None = Field(
        description="Of all schedules on par, with a period or without, the one with the fewest feature updates."
    )
    equal_distance: "FrequencyResult | None" = Field(
        None, description="The answer where smaller learning rates take more steps, if both were asked for."
    )

    @property
    def answers(self) -> list[str]:
        return [o.schedule for o in self.outcomes if o.period is not None and o.period == self.k_star]

    @property
    def what_answers(self) -> str:
        return "K*"
