"""What the studies of full-batch gradient descent conclude: data computed from stored records."""

from pydantic import BaseModel, ConfigDict, Field

from relin.study._result import Interval, StudyResult

SLOPE, FACTOR = 0.1, 2.0
"""How far the slope may be from 1, and log₂ of κ*/K from 0, for the ridge to lie along the line.

With x = ηKa the filters are 1 − e^{−x} and x/(x + K/κ), nowhere the same; they are nearest in the maximum norm at
κ = 1.9 K, and elsewhere where other eigenvalues count more.
"""


class DescentResult(StudyResult):
    """What both studies say of their training."""

    num_runs: int
    num_diverged: int
    num_failed: int = Field(0, description="Runs that failed to train.")
    chance: float = Field(description="Accuracy at which a run that did not train counts: the constant predictor's.")
    num_examples: int = Field(description="N, of the training set.")
    rate: float = Field(description="Learning rate η, as a part of 2/λ_max at the initial network.")


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
