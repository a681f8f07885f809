"""What studies conclude: data computed from stored records, rendered by `relin.report`."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from relin.study._interval import Interval as Interval
from relin.study._scale import Better, Scale


class ScheduleOutcome(BaseModel):
    """A schedule at the learning rate chosen for it on validation data.

    Accuracies and differences are fractions (0.01 is one percentage point), or scores in the unit of the study's
    measure, which are higher the better: of a measure of which lower values are better, its negative. Differences are
    paired by seed, schedule minus ordinary training (K = 1).
    """

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="strings")  # JSON has no ∞, and null means no period

    schedule: str = Field(description="Name as in the records, for example every-4, never, when-error-0.1.")
    label: str = Field(description="Name for people, for example K = 4, K = ∞ (lazy), error ≤ 0.1.")
    period: float | None = Field(description="K; infinity for Never; none for a schedule without a period.")
    learning_rate: float = Field(description="The chosen rate.")
    num_seeds: int = Field(description="Runs at the chosen rate, one per seed; its means are over them.")
    rate_edge: Literal["largest", "smallest"] | None = Field(
        None, description="Where the chosen rate is an end of those offered; none where only one was, or none trained."
    )
    num_diverged: int = Field(description="Runs at the chosen rate that diverged; each counts at chance accuracy.")
    num_failed: int = Field(0, description="Runs at the chosen rate that failed to train; each counts like these.")
    num_diverged_all_rates: int = Field(description="Runs at any rate that diverged.")
    num_failed_all_rates: int = Field(0, description="Runs at any rate that failed to train.")
    num_runs_all_rates: int = Field(description="Runs at any rate.")
    feature_updates: float = Field(description="Mean number of feature updates of a run.")
    validation_accuracy: float = Field(description="Mean at the end of training, by which the rate was chosen.")
    test_accuracy: Interval = Field(description="Mean at the end of training, of the linearised network.")
    network_test_accuracy: Interval = Field(description="Accuracy of the network f(·; θ_t), not of the linearised one.")
    difference: Interval | None = Field(description="Paired difference in test accuracy to K = 1; none for K = 1.")
    bound: float | None = Field(description="One-sided lower confidence bound of the difference, not corrected.")
    p_value: float | None = Field(description="Of the hypothesis that the loss is the margin or more.")
    p_value_holm: float | None = Field(
        description="The same after Holm's correction over the K tested (or the schedules without a period)."
    )
    on_par: bool | None = Field(
        description="None for K = 1, and where no run of K = 1 trained or, but for accuracy, its mean is no better "
        "than a constant's."
    )

    @property
    def num_untrained(self) -> int:
        """Runs at the chosen rate that diverged or failed to train."""
        return self.num_diverged + self.num_failed

    @property
    def share_untrained(self) -> float:
        """The part of the runs at any rate that diverged or failed to train."""
        return (self.num_diverged_all_rates + self.num_failed_all_rates) / max(self.num_runs_all_rates, 1)


class StudyResult(BaseModel):
    """What every study concludes."""

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="strings")  # as above, for K* = ∞

    study: str = Field(description="The name of the study.")
    data: str = Field(description="The data set.")
    model: str = Field(description="The network.")
    num_steps: int = Field(description="T, the steps of a run.")
    num_seeds: int = Field(description="Paired seeds: the fewest of any schedule tested.")
    measure: str = Field("accuracy", description="What the accuracies are; R² of values to predict.")
    verdict: str = Field(description="In words.")

    @property
    def scale(self) -> Scale:
        """How its numbers are read."""
        return Scale(self.measure)


class GridResult(StudyResult):
    """How the schedules of a study came out."""

    unit: str = Field("%", description="Of the measure; % for fractions, empty for numbers without a unit.")
    better: Better = Field(
        "higher", description="Which values of the measure are; if lower ones, all scores here are its negative."
    )
    relative_margin: float | None = Field(
        None, description="Of values: the largest acceptable rise of the test error, as a part of ordinary training's."
    )
    margin: float = Field(description="The largest acceptable loss of accuracy, a fraction, or of the score.")
    confidence: float = Field(description="Of the one-sided bound, for example 0.95.")
    chance: float = Field(description="Accuracy at which a run that did not train counts: the constant predictor's.")
    outcomes: list[ScheduleOutcome] = Field(description="Periods in increasing order, then the other schedules.")
    lazy_gap: Interval | None = Field(description="Accuracy of K = 1 minus K = ∞, paired by seed, two-sided.")

    def margin_of(self, ordinary: ScheduleOutcome) -> float:
        """The margin, in the unit of accuracies, of what is compared with this ordinary training."""
        return self.scale.beside(ordinary.test_accuracy.mean).margin

    @property
    def scale(self) -> Scale:
        """How its numbers are read."""
        return Scale(self.measure, self.unit, self.better, self.margin, self.relative_margin)

    @property
    def is_comparable(self) -> bool:
        """Whether ordinary training is something that others can be compared with, at any value of an axis."""
        others = [outcome for outcome in self.outcomes if outcome.difference is not None]
        return not others or any(outcome.on_par is not None for outcome in others)

    @property
    def num_runs(self) -> int:
        """Runs at any learning rate."""
        return sum(outcome.num_runs_all_rates for outcome in self.outcomes)

    @property
    def num_diverged(self) -> int:
        """Runs at any rate that diverged."""
        return sum(outcome.num_diverged_all_rates for outcome in self.outcomes)

    @property
    def num_failed(self) -> int:
        """Runs at any rate that failed to train."""
        return sum(outcome.num_failed_all_rates for outcome in self.outcomes)

    @property
    def answers(self) -> list[str]:
        """Names of the schedules that answer the question: they stand out in tables and on terminals."""
        return []

    @property
    def what_answers(self) -> str:
        """What these are, as the subject of a sentence; empty without them."""
        return ""

    def outcome(self, schedule: str) -> ScheduleOutcome | None:
        """The outcome of a schedule by its name, if it was tested."""
        return next((outcome for outcome in self.outcomes if outcome.schedule == schedule), None)
