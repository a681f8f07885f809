"""What the width study concludes: data computed from stored records."""

from pydantic import BaseModel, ConfigDict, Field

from relin.study._kernel import Constancy
from relin.study._result import GridResult, Interval, ScheduleOutcome


class WidthOutcome(BaseModel):
    """A width: ordinary and lazy training at the learning rates chosen for them there, and the kernel."""

    model_config = ConfigDict(frozen=True)

    width: int
    ordinary: ScheduleOutcome
    lazy: ScheduleOutcome
    gap: Interval = Field(description="Test accuracy of K = 1 minus that of K = ∞, paired by seed.")
    num_seeds: int = Field(description="Runs of K = 1 that trained; the kernel's numbers are over them.")
    change: Interval | None = Field(description="‖K − K₀‖/‖K₀‖ at the end of ordinary training.")
    distance: Interval | None = Field(description="1 − ⟨K, K₀⟩/(‖K‖‖K₀‖) at the end of ordinary training.")
    deviation: Interval | None = Field(
        description="‖K₀ − Θ_∞‖/‖Θ_∞‖, of the initial kernel from that of infinite width, over all seeds."
    )


class WidthResult(GridResult):
    """The answer to *does the NTK move less in wider networks, and does feature learning then matter less?*"""

    widths: list[WidthOutcome] = Field(description="In increasing order.")
    change_slope: Interval | None = Field(
        description="Of log relative change against log width: fitted seed by seed, mean over seeds."
    )
    deviation_slope: Interval | None = Field(description="The same of the deviation from the kernel of infinite width.")
    constancy: Constancy
