"""What the frequency study concludes: data computed from stored records, rendered by `relin.report`."""

from pydantic import BaseModel, ConfigDict, Field


class Interval(BaseModel):
    """An estimate with its two-sided confidence interval, in the unit of the estimate."""

    model_config = ConfigDict(frozen=True)

    mean: float
    low: float
    high: float


class ScheduleOutcome(BaseModel):
    """One line of the frequency table: a schedule at the learning rate chosen for it on validation data.

    Accuracies and differences are fractions (0.01 is one percentage point); differences are paired by seed,
    schedule minus ordinary training (K = 1).
    """

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="strings")  # JSON has no ∞, and null means no period

    schedule: str = Field(description="Name as in the records, for example every-4, never, when-error-0.1.")
    label: str = Field(description="Name for people, for example K = 4, K = ∞ (lazy), error ≤ 0.1.")
    period: float | None = Field(description="K; infinity for Never; none for a schedule without a period.")
    learning_rate: float
    num_seeds: int = Field(description="Runs at the chosen rate, one per seed; its means are over them.")
    num_diverged: int = Field(description="Runs at the chosen rate that diverged; each counts at chance accuracy.")
    num_diverged_all_rates: int = Field(description="Runs at any rate that diverged.")
    num_runs_all_rates: int
    feature_updates: float = Field(description="Mean number of feature updates of a run.")
    validation_accuracy: float
    test_accuracy: Interval
    network_test_accuracy: Interval = Field(description="Accuracy of the network f(·; θ_t), not of the linearised one.")
    difference: Interval | None = Field(description="Paired difference in test accuracy to K = 1; none for K = 1.")
    bound: float | None = Field(description="One-sided lower confidence bound of the difference, not corrected.")
    p_value: float | None = Field(description="Of the hypothesis that the loss is the margin or more.")
    p_value_holm: float | None = Field(
        description="The same after Holm's correction over the K tested (or the schedules without a period)."
    )
    on_par: bool | None = Field(description="None for K = 1, and where all runs of K = 1 diverged.")


class FrequencyResult(BaseModel):
    """The answer to *how rarely can features be updated without loss?*"""

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="strings")  # as above, for K* = ∞

    study: str
    data: str
    model: str
    num_steps: int
    num_seeds: int = Field(description="Seeds paired with K = 1: the fewest of any K tested.")
    margin: float = Field(description="The largest acceptable loss of accuracy, a fraction.")
    confidence: float = Field(description="Of the one-sided bound, for example 0.95.")
    chance: float = Field(description="Accuracy a diverged run counts at: 1/C.")
    outcomes: list[ScheduleOutcome] = Field(description="Periods in increasing order, then the other schedules.")
    k_star: float | None = Field(
        description="Largest K on par together with every smaller K tested; 1 if the smallest is not, "
        "none if no K above 1 was tested or all runs of K = 1 diverged."
    )
    sufficient_feature_updates: int | None = Field(
        description="⌈T/K*⌉ − 1, or the mean of K*'s runs where they may take more steps than T; none without K*."
    )
    lazy_gap: Interval | None = Field(description="Accuracy of K = 1 minus K = ∞, paired by seed, two-sided.")
    verdict: str = Field(description="One sentence.")
