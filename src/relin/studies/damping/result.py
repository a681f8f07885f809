"""What the damping study concludes: data computed from stored records."""

from pydantic import BaseModel, ConfigDict, Field

from relin.study._descent_result import DescentResult
from relin.study._result import Interval

SLOPE, FACTOR = 0.1, 2.0
"""How far the slope may be from 1, and log₂ of κ*/K from 0, for the ridge to lie along the line.

With x = ηKa the filters are 1 − e^{−x} and x/(x + K/κ), nowhere the same; they are nearest in the maximum norm at
κ = 1.9 K, and elsewhere where other eigenvalues count more.
"""


class DampingRun(BaseModel):
    """Where the runs of one damping ended, after all outer steps."""

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="strings")

    way: str = Field(description="every: K steps of descent at an anchor; gauss-newton: λ = 1/(ηκ).")
    number: float = Field(description="K, or κ.")
    num_diverged: int
    num_failed: int = Field(0, description="Runs that failed to train.")
    test_accuracy: Interval = Field(description="Runs that did not train count at chance.")
    validation_accuracy: float
    train_loss: Interval | None = Field(description="log₁₀ of the training loss, over the runs that did not diverge.")
    kernel_distance: Interval | None = Field(description="1 − ⟨K, K₀⟩/(‖K‖‖K₀‖) to the kernel at the start.")
    reached: Interval | None = Field(
        description="Test accuracy at the first outer step whose training loss is at most `reached_loss` of the first; "
        "over the runs that reach it, none if fewer than two do."
    )


class Ridge(BaseModel):
    """Which damping is nearest to each period, after a number of outer steps."""

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="strings")

    after: int
    distances: list[list[float | None]] = Field(
        description="For each period, for each κ: ‖f_K − f_κ‖/‖f_K − f_0‖ on the probe, mean over seeds."
    )
    nearest: list[Interval | None] = Field(description="κ*/K of each period, as log₂; none where κ* is at an end.")
    slope: Interval | None = Field(description="Of log κ* against log K; 1 on the line λ = 1/(ηK).")
    factor: Interval | None = Field(description="log₂ of κ*/K, mean over periods; 0 on the line.")
    on_line: list[Interval | None] = Field(description="The distance at κ = K, for each period.")

    @property
    def along_the_line(self) -> bool:
        """Whether the ridge lies along λ = 1/(ηK): its slope within 0.1 of 1, κ*/K within a factor of 4."""
        if self.slope is None or self.factor is None:
            return False
        return abs(self.slope.mean - 1) <= SLOPE and abs(self.factor.mean) <= FACTOR


class Choice(BaseModel):
    """Nearly no damping against the best one, of one method."""

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="strings")

    best: float = Field(description="κ or K of the highest validation accuracy.")
    least: float = Field(description="The largest κ or K.")
    difference: Interval = Field(description="Test accuracy of the least less that of the best, paired by seed.")


class DampingResult(DescentResult):
    """The answer to *is iterative linearisation damped Gauss–Newton?*"""

    periods: list[float]
    kappas: list[float]
    ridges: list[Ridge]
    runs: list[DampingRun]
    descent: Choice
    gauss_newton: Choice
    reached_loss: float = Field(description="The part of the first training loss that stands for equal training.")

    def of(self, way: str) -> list[DampingRun]:
        """The runs of one method, by increasing K or κ."""
        return [run for run in self.runs if run.way == way]

    def run(self, way: str, number: float) -> DampingRun:
        return next(run for run in self.of(way) if run.number == number)
