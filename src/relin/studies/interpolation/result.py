"""What the interpolation study concludes: data computed from stored records."""

from pydantic import BaseModel, ConfigDict, Field

from relin.study._descent_result import DescentResult
from relin.study._result import Interval


class PeriodOutcome(BaseModel):
    """Where a period's runs ended; distances are in units of that between the two ends of the interpolation."""

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="strings")

    period: float
    num_diverged: int
    num_failed: int = Field(0, description="Runs that failed to train.")
    test_accuracy: Interval = Field(description="Of the linearised predictor; runs that did not train count at chance.")
    network_test_accuracy: Interval = Field(description="Of the network f(·; θ_T).")
    to_ordinary: Interval | None = Field(
        description="‖f̄ − f_ordinary‖/‖f_regression − f_ordinary‖ on the probe; none with fewer than two runs."
    )
    to_regression: Interval | None = Field(description="‖f̄ − f_regression‖/‖f_regression − f_ordinary‖.")


class InterpolationResult(DescentResult):
    """The answer to *does K lead from ordinary training to NTK regression?*"""

    periods: list[PeriodOutcome] = Field(description="In increasing order.")
    ordinary_accuracy: Interval
    regression_accuracy: Interval
    at_ordinary: float = Field(
        description="Largest ‖f(·; θ_T) − f_ordinary‖/‖f_ordinary‖ over seeds, of the network of K = 1."
    )
    at_regression: float = Field(description="Largest ‖f̄ − f_regression‖/‖f_regression‖ over seeds, of K = ∞.")
    num_ordinary_diverged: int = Field(0, description="Seeds in which ordinary training diverged.")
    ends_apart: Interval | None = Field(description="‖f_regression − f_ordinary‖/‖f_ordinary‖.")
    limit_apart: Interval | None = Field(description="‖f_limit − f_regression‖/‖f_regression − f_ordinary‖, of t = ∞.")
    rounding: float = Field(description="Relative distances up to this are called rounding errors.")
    farther: int = Field(description="At how many steps from one K to the next the mean distance to ordinary grows.")
    nearer: int = Field(description="At how many of them the mean distance to NTK regression shrinks.")
    compared: int = Field(description="Of how many.")
    half_way: float | None = Field(description="Smallest K nearer to NTK regression than to ordinary training.")

    @property
    def coincide(self) -> tuple[bool, bool]:
        """Whether K = 1 is ordinary training, and K = ∞ NTK regression, up to rounding."""
        return self.at_ordinary <= self.rounding, self.at_regression <= self.rounding
