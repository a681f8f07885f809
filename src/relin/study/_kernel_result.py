"""What the studies of the neural tangent kernel conclude: data computed from stored records."""

from pydantic import BaseModel, ConfigDict, Field

from relin.study._result import GridResult, Interval, ScheduleOutcome


class KernelOutcome(BaseModel):
    """The kernel at the end of a schedule's runs at its learning rate, over the seeds that trained.

    The intervals are none where fewer than two seeds are left, or where a metric is not defined.
    """

    model_config = ConfigDict(frozen=True)

    schedule: str = Field(description="The schedule's name, as in the outcomes.")
    num_seeds: int = Field(description="Runs at the chosen rate that trained; the kernel's numbers are over them.")
    distance: Interval | None = Field(description="1 − ⟨K, K₀⟩/(‖K‖‖K₀‖) to the kernel at step 0.")
    change: Interval | None = Field(description="‖K − K₀‖/‖K₀‖.")
    cka: Interval | None = Field(description="Centred alignment with the kernel at step 0.")
    alignment: Interval | None = Field(description="Centred alignment with the targets.")
    effective_rank: Interval | None = Field(description="exp of the entropy of the normalised eigenvalues.")


class FrozenKernel(BaseModel):
    """How good lazy training is on the kernels of one schedule, by the step at which they were taken."""

    model_config = ConfigDict(frozen=True)

    schedule: str = Field(description="Whose kernels; its name, as in the outcomes.")
    learning_rate: float | None = Field(description="Of the schedule's own runs.")
    num_seeds: int = Field(description="Seeds of which kernels were taken.")
    steps: list[int] = Field(description="At which a kernel was taken, the first of them 0.")
    accuracy: list[Interval] = Field(description="Test accuracy of lazy training on each, in the order of the steps.")
    gain: Interval = Field(description="Accuracy on the last kernel minus that on the first, paired by seed.")


class Constancy(BaseModel):
    """Whether the kernel was exactly constant where it must be: between feature updates, and always at K = ∞."""

    model_config = ConfigDict(frozen=True)

    num_checked: int = Field(description="Pairs of consecutive records without a feature update between them.")
    num_violated: int = Field(description="Of these, those in which the kernel changed, if ever so little.")
    first_violation: str | None = Field(description="The run and the step of the first of them.")


class KernelResult(GridResult):
    """The answer to *does the NTK stay constant?*"""

    kernels: list[KernelOutcome] = Field(description="In the order of the outcomes.")
    initial_alignment: Interval | None = Field(description="Alignment with the targets of the kernel at step 0.")
    initial_rank: Interval | None = Field(description="Effective rank of the kernel at step 0.")
    constancy: Constancy
    frozen: list[FrozenKernel] = Field(description="Of the schedules of which kernels were taken on the way.")

    def kernel(self, schedule: str) -> KernelOutcome | None:
        """The kernel of a schedule by its name, if it was tested."""
        return next((kernel for kernel in self.kernels if kernel.schedule == schedule), None)


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
